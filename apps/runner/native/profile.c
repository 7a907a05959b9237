#include "profile.h"

#include "alloc.h"
#include "events.h"

enum { WHOLE = 1, OPERATOR = 2, KERNEL = 8 }; /* a run; an operator outside of delegates; a kernel in one */

struct profile_event { /* 13 words of 64 bits in version 2.3.0 */
    const char *name;
    uint32_t kind, unused;
    uint64_t start_us, length_us;
    uint64_t memory_before[3], memory_after[3];
    uint64_t operator_numbers[2];
    uint64_t source;
};
_Static_assert(sizeof(struct profile_event) == 13 * 8, "the layout of LiteRT's profiler events");

struct profile {
    size_t count;
    char **names;
    struct text times_us, whole_us; /* what goes into the brackets */
};

/* Takes the names of the first run; false if those of a later one differ. */
static bool same_names(struct profile *profile, const struct profile_event *events, int count) {
    size_t seen = 0;
    bool first = profile->names == NULL;
    if (first) {
        profile->names = made((size_t)count, sizeof *profile->names);
    }
    for (int i = 0; i < count; i++) {
        if (events[i].kind != OPERATOR && events[i].kind != KERNEL) {
            continue;
        }
        if (first) {
            profile->names[profile->count++] = copied(events[i].name ? events[i].name : "");
        } else if (seen >= profile->count || strcmp(profile->names[seen], events[i].name ? events[i].name : "") != 0) {
            return false;
        }
        seen++;
    }
    return seen == profile->count;
}

static bool take_run(struct profile *profile, const struct profile_event *events, int count, struct failure *failure) {
    const struct profile_event *whole = NULL;
    if (!same_names(profile, events, count)) {
        return fail(failure, "run", "the runs do not have the same kernels");
    }
    const char *between = "";
    text_add(&profile->times_us, profile->times_us.length ? ", [" : "[");
    for (int i = 0; i < count; i++) {
        if (events[i].kind == OPERATOR || events[i].kind == KERNEL) {
            text_add(&profile->times_us, "%s%llu", between, (unsigned long long)events[i].length_us);
            between = ", ";
        } else if (events[i].kind == WHOLE && whole == NULL && events[i].name != NULL &&
                   strcmp(events[i].name, "Invoke") == 0) {
            whole = &events[i];
        }
    }
    text_add(&profile->times_us, "]");
    if (whole == NULL) {
        return fail(failure, "run", "the profiler does not tell a whole run");
    }
    text_add(&profile->whole_us, "%s%llu", profile->whole_us.length ? ", " : "", (unsigned long long)whole->length_us);
    return true;
}

static bool profiled_run(struct model *model, void *profiler, struct profile *profile, struct failure *failure) {
    struct litert *api = model->api;
    int count = 0;
    if (!LITERT_CALL(api, failure, "run", StartProfiler, profiler) || !model_run(model, failure) ||
        !LITERT_CALL(api, failure, "run", StopProfiler, profiler) ||
        !LITERT_CALL(api, failure, "run", GetNumProfilerEvents, profiler, &count)) {
        return false;
    }
    struct profile_event *events = made(count > 0 ? (size_t)count : 1, sizeof *events);
    bool good = LITERT_CALL(api, failure, "run", GetProfilerEvents, profiler, count, events) &&
                take_run(profile, events, count, failure) &&
                LITERT_CALL(api, failure, "run", ResetProfiler, profiler); /* only now: it owns the names */
    free(events);
    return good;
}

static void send(const struct job_case *item, const struct profile *profile) {
    struct text *line = event_of("profile", item->id);
    text_add(line, ", \"names\": [");
    for (size_t i = 0; i < profile->count; i++) {
        text_add(line, "%s", i ? ", " : "");
        text_quote(line, profile->names[i]);
    }
    text_add(line, "], \"times_us\": [%s], \"whole_us\": [%s]", profile->times_us.data, profile->whole_us.data);
    event_send(line);
}

bool profile_send(struct model *model, const struct job *job, const struct job_case *item, struct failure *failure) {
    struct profile profile = {0};
    void *profiler = NULL;
    bool good = LITERT_CALL(model->api, failure, "run", CompiledModelGetProfiler, model->compiled, &profiler);
    for (long i = 0; good && i < job->warm_up_runs; i++) {
        good = model_run(model, failure);
    }
    for (long i = 0; good && i < job->runs; i++) {
        good = profiled_run(model, profiler, &profile, failure);
    }
    if (good && profile.count == 0) {
        good = fail(failure, "run", "the profiler names no kernels");
    }
    if (good) {
        send(item, &profile);
    }
    for (size_t i = 0; i < profile.count; i++) {
        free(profile.names[i]);
    }
    free(profile.names);
    free(profile.times_us.data);
    free(profile.whole_us.data);
    return good;
}
