#include "model.h"

#include "alloc.h"

enum { CPU = 1, LOCK_READ = 0, LOCK_WRITE = 1, RANK_BITS = 0x7F };

static bool add_setting(struct model *model, const char *name, const char *text, struct failure *failure) {
    void *opaque = NULL;
    char *payload = copied(text); /* the options free it, with themselves */
    if (!LITERT_CALL(model->api, failure, "load", CreateOpaqueOptions, name, payload, free, &opaque)) {
        free(payload);
        return false;
    }
    return LITERT_CALL(model->api, failure, "load", AddOpaqueOptions, model->options, opaque);
}

static bool make_options(struct model *model, int threads, bool profiling, struct failure *failure) {
    char text[64];
    snprintf(text, sizeof text, "num_threads = %d\n", threads);
    if (!LITERT_CALL(model->api, failure, "load", CreateOptions, &model->options) ||
        !LITERT_CALL(model->api, failure, "load", SetOptionsHardwareAccelerators, model->options, CPU) ||
        !add_setting(model, "xnnpack", text, failure)) {
        return false;
    }
    return !profiling || add_setting(model, "runtime_options_string", "enable_profiling = true\n", failure);
}

/* The spec of a tensor. A dimension that the file leaves open is the one that was compiled. */
static bool read_spec(struct model *model, void *tensor, struct litert_type *type, struct spec *spec,
                      const struct litert_layout *compiled, struct failure *failure) {
    if (!LITERT_CALL(model->api, failure, "load", GetRankedTensorType, tensor, type)) {
        return false;
    }
    spec->rank = (int)(type->layout.bits & RANK_BITS);
    spec->litert = type->element;
    spec->element = element_of_litert(type->element);
    if (spec->rank > MOST_DIMENSIONS) {
        return fail(failure, "load", "a tensor has %d dimensions", spec->rank);
    }
    for (int i = 0; i < spec->rank; i++) {
        if (type->layout.dimensions[i] < 0 && compiled != NULL) {
            type->layout.dimensions[i] = compiled->dimensions[i];
        }
        if (type->layout.dimensions[i] < 0) {
            return fail(failure, "load", "the shape of a tensor is not fixed");
        }
        spec->shape[i] = type->layout.dimensions[i];
    }
    return true;
}

static bool make_buffer(struct model *model, struct side *side, size_t i, const struct litert_type *type, void *needs,
                        struct failure *failure) {
    size_t bytes = 0;
    struct litert *api = model->api;
    const struct spec *spec = &side->tensors[i].spec;
    if (!LITERT_CALL(api, failure, "load", CreateManagedTensorBufferFromRequirements, api->environment, type, needs,
                     &side->buffers[i]) ||
        !LITERT_CALL(api, failure, "load", GetTensorBufferPackedSize, side->buffers[i], &bytes)) {
        return false;
    }
    if (spec->element != NULL && bytes != spec_bytes(spec)) {
        return fail(failure, "load", "a tensor of %zu bytes has a buffer of %zu", spec_bytes(spec), bytes);
    }
    return true;
}

static void make_side(struct side *side, size_t count) {
    side->count = count;
    side->tensors = made(count, sizeof *side->tensors);
    side->buffers = made(count, sizeof *side->buffers);
}

/* The place of a tensor of the graph among the signature's, their count if it has none. Of a tensor that has several
   names LiteRT fills the last buffer alone. */
static size_t place_of(const struct side *side, const void *handle) {
    size_t found = side->count;
    for (size_t i = 0; i < side->count; i++) {
        if (side->tensors[i].handle == handle) {
            found = i;
        }
    }
    return found;
}

/* A signature may name the inputs and outputs in an order of its own; ours is the graph's, as other runtimes tell it. */
static bool find_places(struct model *model, struct side *side, void *subgraph, bool inputs, struct failure *failure) {
    struct litert *api = model->api;
    if (!(inputs ? LITERT_CALL(api, failure, "load", GetNumSubgraphInputs, subgraph, &side->graph_count)
                 : LITERT_CALL(api, failure, "load", GetNumSubgraphOutputs, subgraph, &side->graph_count))) {
        return false;
    }
    side->places = made(side->graph_count, sizeof *side->places);
    for (size_t i = 0; i < side->graph_count; i++) {
        void *handle = NULL;
        if (!(inputs ? LITERT_CALL(api, failure, "load", GetSubgraphInput, subgraph, i, &handle)
                     : LITERT_CALL(api, failure, "load", GetSubgraphOutput, subgraph, i, &handle))) {
            return false;
        }
        side->places[i] = place_of(side, handle);
        if (side->places[i] == side->count) {
            return fail(failure, "load", "the file's signature leaves %s %zu of its graph out",
                        inputs ? "input" : "output", i + 1);
        }
    }
    return true;
}

static bool make_inputs(struct model *model, void *subgraph, struct failure *failure) {
    struct litert *api = model->api;
    size_t count = 0;
    if (!LITERT_CALL(api, failure, "load", GetNumSignatureInputs, model->signature, &count)) {
        return false;
    }
    make_side(&model->inputs, count);
    for (size_t i = 0; i < count; i++) {
        void *needs = NULL;
        struct tensor *tensor = &model->inputs.tensors[i];
        struct litert_type type = {0};
        struct litert_layout layout = {0};
        if (!LITERT_CALL(api, failure, "load", GetSignatureInputTensorByIndex, model->signature, i, &tensor->handle) ||
            !LITERT_CALL(api, failure, "load", GetTensorName, tensor->handle, &tensor->name) ||
            !LITERT_CALL(api, failure, "load", GetCompiledModelInputTensorLayout, model->compiled, 0, i, &layout) ||
            !read_spec(model, tensor->handle, &type, &tensor->spec, &layout, failure) ||
            !LITERT_CALL(api, failure, "load", GetCompiledModelInputBufferRequirements, model->compiled, 0, i, &needs) ||
            !make_buffer(model, &model->inputs, i, &type, needs, failure)) {
            return false;
        }
    }
    return find_places(model, &model->inputs, subgraph, true, failure);
}

static bool make_outputs(struct model *model, void *subgraph, struct failure *failure) {
    struct litert *api = model->api;
    size_t count = 0;
    if (!LITERT_CALL(api, failure, "load", GetNumSignatureOutputs, model->signature, &count)) {
        return false;
    }
    make_side(&model->outputs, count);
    for (size_t i = 0; i < count; i++) {
        void *needs = NULL;
        struct tensor *tensor = &model->outputs.tensors[i];
        struct litert_type type = {0};
        if (!LITERT_CALL(api, failure, "load", GetSignatureOutputTensorByIndex, model->signature, i, &tensor->handle) ||
            !LITERT_CALL(api, failure, "load", GetTensorName, tensor->handle, &tensor->name) ||
            !read_spec(model, tensor->handle, &type, &tensor->spec, NULL, failure)) {
            return false;
        }
        size_t input = place_of(&model->inputs, tensor->handle);
        if (input < model->inputs.count) { /* with a buffer of its own the run would read that as the input */
            model->outputs.buffers[i] = model->inputs.buffers[input];
            tensor->borrowed = true;
            continue;
        }
        if (!LITERT_CALL(api, failure, "load", GetCompiledModelOutputBufferRequirements, model->compiled, 0, i, &needs) ||
            !make_buffer(model, &model->outputs, i, &type, needs, failure)) {
            return false;
        }
    }
    return find_places(model, &model->outputs, subgraph, false, failure);
}

bool model_load(struct model *model, struct litert *api, const char *path, int threads, bool profiling,
                struct failure *failure) {
    void *subgraph = NULL;
    memset(model, 0, sizeof *model);
    model->api = api;
    return LITERT_CALL(api, failure, "load", CreateModelFromFile, api->environment, path, &model->file) &&
           make_options(model, threads, profiling, failure) &&
           LITERT_CALL(api, failure, "load", CreateCompiledModel, api->environment, model->file, model->options,
                       &model->compiled) &&
           LITERT_CALL(api, failure, "load", GetModelSignature, model->file, 0, &model->signature) &&
           LITERT_CALL(api, failure, "load", GetSignatureSubgraph, model->signature, &subgraph) &&
           make_inputs(model, subgraph, failure) && make_outputs(model, subgraph, failure);
}

bool model_run(struct model *model, struct failure *failure) {
    return LITERT_CALL(model->api, failure, "run", RunCompiledModel, model->compiled, 0, model->inputs.count,
                       model->inputs.buffers, model->outputs.count, model->outputs.buffers);
}

bool model_set_input(struct model *model, size_t index, const void *value, struct failure *failure) {
    void *place = NULL;
    if (!LITERT_CALL(model->api, failure, "input", LockTensorBuffer, model->inputs.buffers[index], &place,
                     LOCK_WRITE)) {
        return false;
    }
    memcpy(place, value, spec_bytes(&model->inputs.tensors[index].spec));
    return LITERT_CALL(model->api, failure, "input", UnlockTensorBuffer, model->inputs.buffers[index]);
}

bool model_get_output(struct model *model, size_t index, void *value, struct failure *failure) {
    void *place = NULL;
    if (!LITERT_CALL(model->api, failure, "run", LockTensorBuffer, model->outputs.buffers[index], &place, LOCK_READ)) {
        return false;
    }
    memcpy(value, place, spec_bytes(&model->outputs.tensors[index].spec));
    return LITERT_CALL(model->api, failure, "run", UnlockTensorBuffer, model->outputs.buffers[index]);
}

static void free_side(struct litert *api, struct side *side) {
    for (size_t i = 0; i < side->count; i++) {
        if (side->buffers[i] != NULL && !side->tensors[i].borrowed) {
            api->DestroyTensorBuffer(side->buffers[i]);
        }
    }
    free(side->tensors);
    free(side->buffers);
    free(side->places);
}

void model_free(struct model *model) {
    struct litert *api = model->api;
    if (api == NULL) {
        return;
    }
    free_side(api, &model->inputs);
    free_side(api, &model->outputs);
    if (model->compiled != NULL) {
        api->DestroyCompiledModel(model->compiled);
    }
    if (model->options != NULL) {
        api->DestroyOptions(model->options);
    }
    if (model->file != NULL) {
        api->DestroyModel(model->file);
    }
    memset(model, 0, sizeof *model);
}
