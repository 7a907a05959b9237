#include "infer.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "alloc.h"
#include "events.h"
#include "match.h"
#include "npy.h"
#include "peak.h"
#include "text.h"
#include "timing.h"

enum { TELL_NS = 250000000 }; /* between two lines of progress */

struct input { /* one of the graph's, in its order */
    struct npy npy;
    size_t index; /* the signature's */
    const struct spec *spec;
};

struct output { /* one that is wanted, in the order in which they are */
    struct npy npy;
    size_t index;
    struct spec row; /* without the batch of 1 */
    struct text path, partial;
};

struct inference {
    size_t input_count, output_count;
    struct input *inputs;
    struct output *outputs;
    void *row; /* of any input or output */
    long long baseline, peak;
};

static bool does_not_fit(const struct inference *work, size_t number, struct failure *failure) {
    char which[64] = "the inputs are", given[256], wanted[128], type[32];
    const struct npy *npy = &work->inputs[number].npy;
    const struct spec *spec = work->inputs[number].spec;
    if (work->input_count > 1) {
        snprintf(which, sizeof which, "input %zu of %zu is", number + 1, work->input_count);
    }
    snprintf(type, sizeof type, "type %d", spec->litert);
    shape_text(given, sizeof given, npy->rank, npy->shape);
    shape_text(wanted, sizeof wanted, spec->rank, spec->shape);
    return fail(failure, "input", "%s %s %s, the file takes %s %s", which, npy->dtype, given,
                spec->element ? spec->element->name : type, wanted);
}

static bool input_fits(const struct inference *work, size_t number, struct failure *failure) {
    const struct npy *npy = &work->inputs[number].npy;
    const struct spec *spec = work->inputs[number].spec;
    bool fits = spec->element != NULL && spec->rank > 0 && spec->shape[0] == 1 && npy->rank == spec->rank &&
                npy->shape[0] > 0 && strcmp(npy->dtype, spec->element->name) == 0;
    for (int i = 1; fits && i < spec->rank; i++) {
        fits = npy->shape[i] == spec->shape[i];
    }
    if (!fits) {
        return does_not_fit(work, number, failure);
    }
    if (npy->shape[0] != work->inputs[0].npy.shape[0]) {
        return fail(failure, "input", "input %zu of %zu has %" PRId64 " rows, input 1 %" PRId64, number + 1,
                    work->input_count, npy->shape[0], work->inputs[0].npy.shape[0]);
    }
    return true;
}

static bool open_inputs(struct inference *work, const struct job_case *item, const struct model *model,
                        struct failure *failure) {
    struct matches matches = {0};
    bool good = match_inputs(model, item, &matches, failure);
    work->input_count = good ? matches.count : 0;
    work->inputs = made(work->input_count, sizeof *work->inputs);
    for (size_t i = 0; good && i < work->input_count; i++) {
        struct input *input = &work->inputs[matches.places[i]];
        input->index = model->inputs.places[matches.places[i]];
        input->spec = &model->inputs.tensors[input->index].spec;
        good = npy_open(&input->npy, item->inputs.items[i], failure);
    }
    for (size_t i = 0; good && i < work->input_count; i++) {
        good = input_fits(work, i, failure);
    }
    free(matches.places);
    return good;
}

/* The first output goes where the case says, the others beside it. */
static bool plan_output(struct output *output, size_t number, const struct job_case *item, const struct model *model,
                        struct failure *failure) {
    struct spec *row = &output->row;
    text_add(&output->path, "%s", item->outputs);
    if (number > 0) {
        text_add(&output->path, ".%zu", number);
    }
    text_add(&output->partial, "%s.partial", output->path.data);
    *row = model->outputs.tensors[output->index].spec;
    if (row->element == NULL) {
        return fail(failure, "load", "the output has elements of type %d, which cannot be saved", row->litert);
    }
    if (row->rank > 0 && row->shape[0] == 1) {
        row->rank--;
        memmove(row->shape, row->shape + 1, (size_t)row->rank * sizeof *row->shape);
    }
    return true;
}

static bool plan_outputs(struct inference *work, const struct job_case *item, const struct model *model,
                         struct failure *failure) {
    struct matches matches = {0};
    bool good = match_outputs(model, item, &matches, failure);
    work->output_count = good ? matches.count : 0;
    work->outputs = made(work->output_count, sizeof *work->outputs);
    for (size_t i = 0; good && i < work->output_count; i++) {
        work->outputs[i].index = model->outputs.places[matches.places[i]];
        good = plan_output(&work->outputs[i], i, item, model, failure);
    }
    free(matches.places);
    return good;
}

static void *row_made(const struct inference *work) {
    size_t most = 1;
    for (size_t i = 0; i < work->input_count; i++) {
        size_t bytes = spec_bytes(work->inputs[i].spec);
        most = bytes > most ? bytes : most;
    }
    for (size_t i = 0; i < work->output_count; i++) {
        size_t bytes = spec_bytes(&work->outputs[i].row);
        most = bytes > most ? bytes : most;
    }
    return made(most, 1);
}

static bool run_row(struct inference *work, struct model *model, struct failure *failure) {
    for (size_t i = 0; i < work->input_count; i++) {
        struct input *input = &work->inputs[i];
        if (!npy_read(&input->npy, work->row, spec_bytes(input->spec), failure) ||
            !model_set_input(model, input->index, work->row, failure)) {
            return false;
        }
    }
    return model_run(model, failure);
}

static bool write_row(struct inference *work, struct model *model, struct failure *failure) {
    for (size_t i = 0; i < work->output_count; i++) {
        struct output *output = &work->outputs[i];
        if (!model_get_output(model, output->index, work->row, failure) ||
            !npy_write(&output->npy, work->row, spec_bytes(&output->row), failure)) {
            return false;
        }
    }
    return true;
}

static bool all_rows(struct inference *work, const struct job *job, const struct job_case *item, struct model *model,
                     struct failure *failure) {
    int64_t told = clock_ns(), count = work->inputs[0].npy.shape[0];
    for (int64_t i = 0; i < count; i++) {
        if (!run_row(work, model, failure)) {
            return false;
        }
        if (i <= job->runs) { /* the same runs as a job that measures memory */
            work->peak = peak_since(work->baseline);
        }
        if (!write_row(work, model, failure)) {
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
    text_quote(line, work->outputs[0].path.data);
    if (work->output_count > 1) {
        text_add(line, ", \"more_files\": [");
        for (size_t i = 1; i < work->output_count; i++) {
            text_add(line, "%s", i > 1 ? ", " : "");
            text_quote(line, work->outputs[i].path.data);
        }
        text_add(line, "]");
    }
    text_add(line, ", \"count\": %" PRId64, work->inputs[0].npy.shape[0]);
    peak_field(line, work->peak);
    event_send(line);
}

/* Moves files to their places when all of them are whole. */
static bool publish(struct inference *work, struct failure *failure) {
    bool good = true;
    for (size_t i = 0; good && i < work->output_count; i++) {
        good = npy_close(&work->outputs[i].npy, failure);
    }
    for (size_t i = 0; good && i < work->output_count; i++) {
        struct output *output = &work->outputs[i];
        if (rename(output->partial.data, output->path.data) != 0) {
            good = fail(failure, "run", "cannot write the outputs %s: %s", output->path.data, strerror(errno));
        }
    }
    return good;
}

/* Writes beside the outputs' places. */
static bool save_rows(struct inference *work, const struct job *job, const struct job_case *item, struct model *model,
                      struct failure *failure) {
    bool good = true;
    struct failure ignored;
    for (size_t i = 0; good && i < work->output_count; i++) {
        struct output *output = &work->outputs[i];
        good = npy_create(&output->npy, output->partial.data, work->inputs[0].npy.shape[0], &output->row, failure);
    }
    good = good && all_rows(work, job, item, model, failure) && publish(work, failure);
    for (size_t i = 0; !good && i < work->output_count; i++) {
        npy_close(&work->outputs[i].npy, &ignored);
        unlink(work->outputs[i].partial.data);
    }
    return good;
}

static void inference_free(struct inference *work) {
    struct failure ignored;
    for (size_t i = 0; i < work->input_count; i++) {
        npy_close(&work->inputs[i].npy, &ignored);
    }
    for (size_t i = 0; i < work->output_count; i++) {
        free(work->outputs[i].path.data);
        free(work->outputs[i].partial.data);
    }
    free(work->inputs);
    free(work->outputs);
    free(work->row);
}

bool infer_case(const struct job *job, struct litert *api, const struct job_case *item, struct model *model,
                struct failure *failure) {
    struct inference work = {.baseline = peak_start(), .peak = NOT_TOLD};
    bool good = model_load(model, api, item->model, job->threads, false, failure) &&
                open_inputs(&work, item, model, failure) && plan_outputs(&work, item, model, failure);
    if (good) {
        work.row = row_made(&work);
        good = save_rows(&work, job, item, model, failure);
    }
    if (good) {
        send_outputs(&work, item);
    }
    inference_free(&work);
    return good;
}
