/* Types of a tensor's elements, by the names that LiteRT, NumPy and .npy files have for them. */
#ifndef EDGEPRUNE_ELEMENT_H
#define EDGEPRUNE_ELEMENT_H

#include <stddef.h>
#include <stdint.h>

enum { LITERT_FLOAT32 = 1, LITERT_BOOL = 6, LITERT_FLOAT16 = 10, LITERT_FLOAT64 = 11 };
enum { MOST_DIMENSIONS = 8 };

struct element {
    int litert;
    const char *name; /* NumPy's */
    const char *npy;  /* of a little-endian machine */
    size_t bytes;
};

/* Elements and shape of a tensor. */
struct spec {
    const struct element *element; /* NULL: of a type that this runner cannot feed or save */
    int litert;
    int rank;
    int64_t shape[MOST_DIMENSIONS];
};

const struct element *element_of_litert(int type); /* NULL if there is none */
const struct element *element_of_npy(const char *code);

size_t spec_count(const struct spec *spec); /* of elements */
size_t spec_bytes(const struct spec *spec);

/* A shape as Python writes a tuple: (1, 2), (3,), (). */
void shape_text(char *out, size_t room, int rank, const int64_t *shape);

#endif
