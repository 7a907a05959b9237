/* .npy files, read and written row by row: a whole calibration set need not fit into a phone. */
#ifndef EDGEPRUNE_NPY_H
#define EDGEPRUNE_NPY_H

#include <stdint.h>
#include <stdio.h>

#include "element.h"
#include "failure.h"

enum { NPY_DIMENSIONS = 32 };

struct npy {
    FILE *file;
    char dtype[32]; /* NumPy's name where there is one here, else the code in the file */
    int rank;
    int64_t shape[NPY_DIMENSIONS];
};

/* Opens a file (versions 1 to 3, C order) at its first row. */
bool npy_open(struct npy *npy, const char *path, struct failure *failure);

/* The next `bytes` bytes of it. */
bool npy_read(struct npy *npy, void *row, size_t bytes, struct failure *failure);

/* A new file of so many rows of this spec, the header written. */
bool npy_create(struct npy *npy, const char *path, int64_t rows, const struct spec *row, struct failure *failure);

bool npy_write(struct npy *npy, const void *row, size_t bytes, struct failure *failure);

/* Closes it; false if what was written did not arrive on the disk. */
bool npy_close(struct npy *npy, struct failure *failure);

#endif
