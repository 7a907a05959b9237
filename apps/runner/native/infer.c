#include "infer.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "alloc.h"
#include "events.h"
#include "npy.h"
#include "peak.h"
#include "text.h"
#include "timing.h"

enum { TELL_NS = 250000000 }; /* between two lines of progress */

struct inference {
    struct npy inputs, outputs;
    struct spec row; /* of the outputs: without the batch of 1 */
    void *input, *output;
    long long baseline, peak;
};

static bool inputs_fit(const struct model *model, const struct npy *inputs, struct failure *failure) {
    char given[256], wanted[128], type[32];
    if (model->inputs.count != 1) {
        return fail(failure, "input", "the file has %zu inputs; inference feeds files with one", model->inputs.count);
    }
    const struct spec *spec = &model->inputs.specs[0];
    bool fits = spec->element != NULL && spec->rank > 0 && spec->shape[0] == 1 && inputs->rank == spec->rank &&
                inputs->shape[0] > 0 && strcmp(inputs->dtype, spec->element->name) == 0;
    for (int i = 1; fits && i < spec->rank; i++) {
        fits = inputs->shape[i] == spec->shape[i];
    }
    if (fits) {
        return true;
    }
    snprintf(type, sizeof type, "type %d", spec->litert);
    shape_text(given, sizeof given, inputs->rank, inputs->shape);
    shape_text(wanted, sizeof wanted, spec->rank, spec->shape);
    return fail(failure, "input", "the inputs are %s %s, the file takes %s %s", inputs->dtype, given,
                spec->element ? spec->element->name : type, wanted);
}

static bool output_row(const struct model *model, struct spec *row, struct failure *failure) {
    if (model->outputs.count == 0) {
        return fail(failure, "load", "the file has no output");
    }
    *row = model->outputs.specs[model->first_output];
    if (row->element == NULL) {
        return fail(failure, "load", "the output has elements of type %d, which cannot be saved", row->litert);
    }
    if (row->rank > 0 && row->shape[0] == 1) {
        row->rank--;
        memmove(row->shape, row->shape + 1, (size_t)row->rank * sizeof *row->shape);
    }
    return true;
}

static bool one_row(struct inference *work, struct model *model, struct failure *failure) {
    size_t bytes = spec_bytes(&model->inputs.specs[0]);
    return npy_read(&work->inputs, work->input, bytes, failure) &&
           model_set_input(model, 0, work->input, failure) && model_run(model, failure);
}

static bool all_rows(struct inference *work, const struct job *job, const struct job_case *item, struct model *model,
                     struct failure *failure) {
    int64_t told = clock_ns(), count = work->inputs.shape[0];
    for (int64_t i = 0; i < count; i++) {
        if (!one_row(work, model, failure)) {
            return false;
        }
        if (i <= job->runs) { /* the same runs as a job that measures memory */
            work->peak = peak_since(work->baseline);
        }
        if (!model_get_output(model, model->first_output, work->output, failure) ||
            !npy_write(&work->outputs, work->output, spec_bytes(&work->row), failure)) {
            return false;
        }
        if (clock_ns() - told > TELL_NS || i + 1 == count) {
            told = clock_ns();
            struct text *line = event_of("progress", item->id);
            text_add(line, ", \"done\": %" PRId64, i + 1);
            event_send(line);
        }
    }
    return true;
}

static void send_outputs(const struct inference *work, const struct job_case *item) {
    struct text *line = event_of("outputs", item->id);
    text_add(line, ", \"file\": ");
    text_quote(line, item->outputs);
    text_add(line, ", \"count\": %" PRId64, work->inputs.shape[0]);
    peak_field(line, work->peak);
    event_send(line);
}

/* Writes beside the outputs' place and moves them there when they are whole. */
static bool save_rows(struct inference *work, const struct job *job, const struct job_case *item, struct model *model,
                      struct failure *failure) {
    struct text partial = {0};
    struct failure ignored;
    text_add(&partial, "%s.partial", item->outputs);
    bool good = npy_create(&work->outputs, partial.data, work->inputs.shape[0], &work->row, failure) &&
                all_rows(work, job, item, model, failure) && npy_close(&work->outputs, failure);
    if (good && rename(partial.data, item->outputs) != 0) {
        good = fail(failure, "run", "cannot write the outputs %s: %s", item->outputs, strerror(errno));
    }
    if (!good) {
        npy_close(&work->outputs, &ignored);
        unlink(partial.data);
    }
    free(partial.data);
    return good;
}

bool infer_case(const struct job *job, struct litert *api, const struct job_case *item, struct model *model,
                struct failure *failure) {
    struct inference work = {.baseline = peak_start(), .peak = NOT_TOLD};
    struct failure ignored;
    bool good = model_load(model, api, item->model, job->threads, false, failure) &&
                npy_open(&work.inputs, item->inputs, failure) && inputs_fit(model, &work.inputs, failure) &&
                output_row(model, &work.row, failure);
    if (good) {
        work.input = made(spec_bytes(&model->inputs.specs[0]), 1);
        work.output = made(spec_bytes(&work.row), 1);
        good = save_rows(&work, job, item, model, failure);
    }
    if (good) {
        send_outputs(&work, item);
    }
    npy_close(&work.inputs, &ignored);
    free(work.input);
    free(work.output);
    return good;
}
