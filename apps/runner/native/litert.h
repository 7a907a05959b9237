/* LiteRT's C API, found in libLiteRt.so at run time: its order of calls and layouts are those of version 2.3.0.

   Status 0 is success; handles are opaque. The library of another version has to be tried before it is trusted. */
#ifndef EDGEPRUNE_LITERT_H
#define EDGEPRUNE_LITERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "element.h"
#include "failure.h"

struct litert_layout {
    uint32_t bits; /* the rank in the lowest seven */
    int32_t dimensions[MOST_DIMENSIONS];
    uint32_t strides[MOST_DIMENSIONS];
};

struct litert_type {
    int32_t element;
    struct litert_layout layout;
};

/* name, parameters; every function answers a status */
#define LITERT_CALLS(X)                                                                \
    X(CreateEnvironment, (int, const void *, void **))                                 \
    X(CreateModelFromFile, (void *, const char *, void **))                            \
    X(CreateOptions, (void **))                                                        \
    X(SetOptionsHardwareAccelerators, (void *, int))                                   \
    X(CreateOpaqueOptions, (const char *, void *, void (*)(void *), void **))          \
    X(AddOpaqueOptions, (void *, void *))                                              \
    X(CreateCompiledModel, (void *, void *, void *, void **))                          \
    X(GetModelSignature, (void *, size_t, void **))                                    \
    X(GetSignatureSubgraph, (void *, void **))                                         \
    X(GetNumSignatureInputs, (void *, size_t *))                                       \
    X(GetNumSignatureOutputs, (void *, size_t *))                                      \
    X(GetSignatureInputTensorByIndex, (void *, size_t, void **))                       \
    X(GetSignatureOutputTensorByIndex, (void *, size_t, void **))                      \
    X(GetNumSubgraphInputs, (void *, size_t *))                                        \
    X(GetNumSubgraphOutputs, (void *, size_t *))                                       \
    X(GetSubgraphInput, (void *, size_t, void **))                                     \
    X(GetSubgraphOutput, (void *, size_t, void **))                                    \
    X(GetTensorName, (void *, const char **))                                          \
    X(GetRankedTensorType, (void *, struct litert_type *))                             \
    X(GetCompiledModelInputTensorLayout, (void *, size_t, size_t, struct litert_layout *)) \
    X(GetCompiledModelInputBufferRequirements, (void *, size_t, size_t, void **))      \
    X(GetCompiledModelOutputBufferRequirements, (void *, size_t, size_t, void **))     \
    X(CreateManagedTensorBufferFromRequirements, (void *, const struct litert_type *, void *, void **)) \
    X(GetTensorBufferPackedSize, (void *, size_t *))                                   \
    X(LockTensorBuffer, (void *, void **, int))                                        \
    X(UnlockTensorBuffer, (void *))                                                    \
    X(RunCompiledModel, (void *, size_t, size_t, void **, size_t, void **))            \
    X(CompiledModelGetProfiler, (void *, void **))                                     \
    X(StartProfiler, (void *))                                                         \
    X(StopProfiler, (void *))                                                          \
    X(ResetProfiler, (void *))                                                         \
    X(GetNumProfilerEvents, (void *, int *))                                           \
    X(GetProfilerEvents, (void *, int, void *))

/* name; each takes one handle and answers nothing */
#define LITERT_ENDS(X) \
    X(DestroyModel)    \
    X(DestroyOptions)  \
    X(DestroyCompiledModel) \
    X(DestroyTensorBuffer)

struct litert {
    void *library, *environment;
#define X(name, parameters) int(*name) parameters;
    LITERT_CALLS(X)
#undef X
#define X(name) void (*name)(void *);
    LITERT_ENDS(X)
#undef X
};

/* A failure that names the function and its status, unless that is 0. */
#define LITERT_CALL(api, failure, kind, name, ...) \
    litert_good((api)->name(__VA_ARGS__), "LiteRt" #name, kind, failure)

bool litert_good(int status, const char *name, const char *kind, struct failure *failure);

/* Loads the library and starts it; false and `why` if it does not load here. */
bool litert_open(struct litert *api, const char *path, char *why, size_t room);

#endif
