#include "modes.h"

#include "alloc.h"
#include "conditions.h"
#include "events.h"
#include "infer.h"
#include "model.h"
#include "peak.h"
#include "profile.h"
#include "random.h"
#include "timing.h"
#include "schedule.h"

enum { WATCH_NS = 1000000000 }; /* between two looks at the conditions */

struct kept { /* what is known of a case between its rounds */
    bool failed, loaded;
    struct model model;
    long batch;
};

static bool set_seeded_inputs(struct model *model, struct failure *failure) {
    struct random random = {0};
    bool good = true;
    for (size_t i = 0; good && i < model->inputs.count; i++) {
        const struct spec *spec = &model->inputs.tensors[i].spec;
        if (spec->element == NULL) {
            return fail(failure, "input", "input %zu has elements of type %d, which have no values here", i, spec->litert);
        }
        void *values = made(spec_bytes(spec), 1);
        random_fill(&random, spec, values);
        good = model_set_input(model, i, values, failure);
        free(values);
    }
    return good;
}

/* A model with inputs that has run once. */
static bool prepared(struct model *model, struct litert *api, const struct job *job, const struct job_case *item,
                     struct failure *failure) {
    return model_load(model, api, item->model, job->threads, job->mode == MODE_PROFILE, failure) &&
           set_seeded_inputs(model, failure) && model_run(model, failure);
}

static bool visit_case(const struct job *job, struct litert *api, const struct job_case *item, long round,
                       struct kept *kept, struct failure *failure) {
    if (!kept->loaded) {
        if (!prepared(&kept->model, api, job, item, failure) ||
            !warm_up(&kept->model, job, item, &kept->batch, failure)) {
            return false;
        }
        kept->loaded = true;
    }
    return timed_visit(&kept->model, job, item, round, kept->batch, failure);
}

static void forget(struct kept *kept) {
    model_free(&kept->model);
    kept->loaded = false;
}

void time_cases(const struct job *job, struct litert *api) {
    size_t count;
    struct place *places = schedule_made(job, &count);
    struct kept *kept = made(job->case_count, sizeof *kept);
    int64_t watched = clock_ns();
    for (size_t i = 0; i < count; i++) {
        const struct job_case *item = &job->cases[places[i].index];
        struct kept *mine = &kept[places[i].index];
        struct failure failure = {0};
        if (mine->failed) {
            continue;
        }
        if (clock_ns() - watched >= WATCH_NS) {
            conditions_send("during");
            watched = clock_ns();
        }
        struct text *line = event_of("begin", item->id);
        text_add(line, ", \"round\": %ld", places[i].round);
        event_send(line);
        if (!visit_case(job, api, item, places[i].round, mine, &failure)) {
            mine->failed = true;
            event_error(item->id, failure.kind, failure.message);
        }
        if (mine->failed || !job->keep_loaded) {
            forget(mine);
        }
    }
    for (size_t i = 0; i < job->case_count; i++) {
        forget(&kept[i]);
    }
    free(kept);
    free(places);
}

/* Peak resident memory that loading and running the file adds to a process that has the runtime loaded. */
static bool memory_case(const struct job *job, struct litert *api, const struct job_case *item, struct model *model,
                        struct failure *failure) {
    long long baseline = peak_start();
    bool good = prepared(model, api, job, item, failure);
    for (long i = 0; good && i < job->runs; i++) {
        good = model_run(model, failure);
    }
    if (good) {
        long long peak = peak_since(baseline);
        struct text *line = event_of("memory", item->id);
        peak_field(line, peak);
        event_send(line);
    }
    return good;
}

static bool profile_case(const struct job *job, struct litert *api, const struct job_case *item, struct model *model,
                         struct failure *failure) {
    return prepared(model, api, job, item, failure) && profile_send(model, job, item, failure);
}

void one_by_one(const struct job *job, struct litert *api) {
    for (size_t i = 0; i < job->case_count; i++) {
        const struct job_case *item = &job->cases[i];
        struct failure failure = {0};
        struct model model = {0};
        struct text *line = event_of("begin", item->id);
        text_add(line, ", \"round\": 0");
        event_send(line);
        bool good = (job->mode == MODE_INFER    ? infer_case
                     : job->mode == MODE_MEMORY ? memory_case
                                                : profile_case)(job, api, item, &model, &failure);
        if (!good) {
            event_error(item->id, failure.kind, failure.message);
        }
        model_free(&model);
    }
}
