#include "timing.h"

#include <math.h>
#include <sys/resource.h>
#include <time.h>

#include "alloc.h"
#include "conditions.h"
#include "events.h"

enum { LEAST_QUARTER = 4 }; /* runs; of fewer than four quarters of it nobody can tell a trend */

struct times { /* nanoseconds */
    int64_t *values;
    size_t count, room;
};

int64_t clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void add_time(struct times *times, int64_t value) {
    if (times->count == times->room) {
        times->room = times->room ? times->room * 2 : 1024;
        times->values = must(realloc(times->values, times->room * sizeof *times->values));
    }
    times->values[times->count++] = value;
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t middle(const int64_t *values, size_t count) {
    if (count == 0) {
        return 1;
    }
    int64_t *ordered = made(count, sizeof *ordered);
    memcpy(ordered, values, count * sizeof *ordered);
    qsort(ordered, count, sizeof *ordered, by_size);
    int64_t found = ordered[count / 2];
    free(ordered);
    return found;
}

/* Whether the medians of the last two quarters agree to this share. */
static bool is_steady(const struct times *times, double share) {
    size_t quarter = times->count / 4;
    if (quarter < LEAST_QUARTER) {
        return false;
    }
    int64_t third = middle(times->values + times->count - 2 * quarter, quarter);
    int64_t last = middle(times->values + times->count - quarter, quarter);
    return (double)llabs((long long)(last - third)) <= share * (double)third;
}

/* Appends runs until the limits are met; the whole length in seconds, or negative after a failure. */
static double run_warm(struct model *model, const struct job *job, struct times *times, struct failure *failure) {
    int64_t start = clock_ns();
    size_t look = 0; /* at so many runs the trend is looked at: rarely where they are many, for looking takes time too */
    while (true) {
        double passed = (double)(clock_ns() - start) / 1e9;
        if ((long)times->count >= job->warm_up_runs && passed >= job->warm_up_s) {
            if (job->steady <= 0 || passed >= job->warm_up_most_s) {
                return passed;
            }
            if (times->count >= look) {
                if (is_steady(times, job->steady)) {
                    return (double)(clock_ns() - start) / 1e9;
                }
                look = times->count + 1 + times->count / 64;
            }
        }
        int64_t begin = clock_ns();
        if (!model_run(model, failure)) {
            return -1;
        }
        add_time(times, clock_ns() - begin);
    }
}

bool warm_up(struct model *model, const struct job *job, const struct job_case *item, long *batch,
             struct failure *failure) {
    struct times times = {0};
    double seconds = run_warm(model, job, &times, failure);
    if (seconds < 0) {
        free(times.values);
        return false;
    }
    const char *steady = job->steady <= 0 ? "null" : is_steady(&times, job->steady) ? "true" : "false";
    size_t half = times.count / 2;
    int64_t typical = middle(times.values + half, times.count - half);
    double expected = fmax((double)job->min_runs, job->min_s * 1e9 / (double)(typical > 1 ? typical : 1));
    *batch = (long)fmax(1, ceil(expected / (double)job->max_samples));
    struct text *line = event_of("warm", item->id);
    text_add(line, ", \"runs\": %zu, \"seconds\": %.3f, \"steady\": %s", times.count, seconds, steady);
    event_keep(line);
    free(times.values);
    return true;
}

/* How often the scheduler took a core away from this process. */
static long switches(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nivcsw;
}

struct visit {
    struct times samples;  /* of `batch` runs each */
    struct times preempted; /* indices of samples */
};

static bool take_samples(struct model *model, const struct job *job, long batch, struct visit *visit,
                         struct failure *failure) {
    double least_ns = job->min_s * 1e9;
    long before = switches();
    int64_t start = clock_ns();
    while (true) {
        int64_t begin = clock_ns();
        for (long i = 0; i < batch; i++) {
            if (!model_run(model, failure)) {
                return false;
            }
        }
        int64_t end = clock_ns();
        long after = switches();
        add_time(&visit->samples, end - begin);
        if (after != before) {
            add_time(&visit->preempted, (int64_t)visit->samples.count - 1);
            before = after;
        }
        double passed = (double)(end - start);
        int64_t count = (int64_t)visit->samples.count, clean = count - (int64_t)visit->preempted.count;
        bool enough = passed >= least_ns || clean >= job->max_samples;
        bool hopeless = passed >= 4 * least_ns && count * batch >= 4 * (int64_t)job->min_runs;
        if ((clean * batch >= job->min_runs && enough) || hopeless) {
            return true;
        }
    }
}

static void send_samples(const struct job_case *item, long round, long batch, const struct visit *visit,
                         double steal_s) {
    struct text *line = event_of("samples", item->id);
    text_add(line, ", \"round\": %ld, \"seconds\": [", round);
    for (size_t i = 0; i < visit->samples.count; i++) { /* to a hundredth of a nanosecond */
        text_add(line, "%s%.11f", i ? ", " : "", (double)visit->samples.values[i] / (double)batch / 1e9);
    }
    text_add(line, "], \"runs_per_sample\": %ld, \"preempted\": [", batch);
    for (size_t i = 0; i < visit->preempted.count; i++) {
        text_add(line, "%s%lld", i ? ", " : "", (long long)visit->preempted.values[i]);
    }
    text_add(line, "], \"steal_s\": ");
    text_number(line, steal_s, 2);
    event_keep(line); /* the next visit begins, or the job ends */
}

bool timed_visit(struct model *model, const struct job *job, const struct job_case *item, long round, long batch,
                 struct failure *failure) {
    struct visit visit = {0};
    bool good = model_run(model, failure);
    double steal = conditions_steal_s();
    good = good && take_samples(model, job, batch, &visit, failure);
    if (good) {
        send_samples(item, round, batch, &visit, steal < 0 ? NAN : fmax(conditions_steal_s(), 0) - steal);
    }
    free(visit.samples.values);
    free(visit.preempted.values);
    return good;
}
