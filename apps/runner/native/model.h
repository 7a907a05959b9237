/* A .tflite file, compiled for the CPU and ready to run. */
#ifndef EDGEPRUNE_MODEL_H
#define EDGEPRUNE_MODEL_H

#include "element.h"
#include "failure.h"
#include "litert.h"

struct side { /* the inputs or the outputs */
    size_t count;
    struct spec *specs;
    void **buffers;
};

struct model {
    struct litert *api;
    void *file, *options, *compiled, *signature;
    struct side inputs, outputs;
    size_t first_output; /* the place of the graph's first output among the signature's */
};

/* Loads a file into an empty model; call model_free also when it fails. Profiling slows the runs down. */
bool model_load(struct model *model, struct litert *api, const char *path, int threads, bool profiling,
                struct failure *failure);

bool model_run(struct model *model, struct failure *failure);

/* Copies spec_bytes() bytes into an input, or out of an output. */
bool model_set_input(struct model *model, size_t index, const void *value, struct failure *failure);
bool model_get_output(struct model *model, size_t index, void *value, struct failure *failure);

void model_free(struct model *model);

#endif
