/* A .tflite file, compiled for the CPU and ready to run. */
#ifndef EDGEPRUNE_MODEL_H
#define EDGEPRUNE_MODEL_H

#include "element.h"
#include "failure.h"
#include "litert.h"

struct tensor { /* an input or output */
    struct spec spec;
    const char *name; /* the file's */
    void *handle;
    bool borrowed; /* its buffer is an input's: the file gives an input back */
};

struct side { /* the inputs or the outputs, in the order of the signature, which is that of a run */
    size_t count;
    struct tensor *tensors;
    void **buffers;
    size_t graph_count;
    size_t *places; /* of the graph's, among these */
};

struct model {
    struct litert *api;
    void *file, *options, *compiled, *signature;
    struct side inputs, outputs;
};

/* Loads a file into an empty model; call model_free also when it fails. Profiling slows the runs down. */
bool model_load(struct model *model, struct litert *api, const char *path, int threads, bool profiling,
                struct failure *failure);

bool model_run(struct model *model, struct failure *failure);

/* Copies spec_bytes() bytes into an input, or out of an output; the index is the signature's. */
bool model_set_input(struct model *model, size_t index, const void *value, struct failure *failure);
bool model_get_output(struct model *model, size_t index, void *value, struct failure *failure);

void model_free(struct model *model);

#endif
