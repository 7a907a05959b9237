/* Runs .tflite models on a device that has no Python: reads a job (JSON), answers in JSON lines on stdout.

       edgeprune-runner job.json

   The job and the lines are those of apps/runner/python_runner.py, whose head describes them. Besides, a job says
   `library {path, version, sha256}`: the libLiteRt.so to load, and what it is. In `start`, `runner` is "native" and
   `python` null. Exit codes: 0 done (with cases that failed, perhaps), 1 no memory, 2 no job, 3 no runtime,
   4 not these cores, 5 nobody reads stdout any more. */
#define _GNU_SOURCE /* CPU_SET, sched_setaffinity */

#include <errno.h>
#include <sched.h>
#include <unistd.h>

#include "alloc.h"
#include "conditions.h"
#include "events.h"
#include "job.h"
#include "litert.h"
#include "modes.h"

enum { NO_JOB = 2, NO_RUNTIME = 3, NO_CORES = 4, WHY_BYTES = 1024 };

static bool take_cores(const struct job *job) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (size_t i = 0; i < job->core_count; i++) {
        if (job->cores[i] < CPU_SETSIZE) {
            CPU_SET(job->cores[i], &set);
        }
    }
    if (sched_setaffinity(0, sizeof set, &set) == 0) {
        return true;
    }
    fprintf(stderr, "cannot run on the cores");
    for (size_t i = 0; i < job->core_count; i++) {
        fprintf(stderr, " %d", job->cores[i]);
    }
    fprintf(stderr, ": %s\n", strerror(errno));
    return false;
}

static void add_cores(struct text *line) {
    cpu_set_t set;
    const char *between = "";
    text_add(line, ", \"cores\": [");
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        for (int core = 0; core < CPU_SETSIZE; core++) {
            if (CPU_ISSET(core, &set)) {
                text_add(line, "%s%d", between, core);
                between = ", ";
            }
        }
    }
    text_add(line, "]");
}

static void send_start(const struct job *job) {
    const char *slash = strrchr(job->library.path, '/');
    struct text *line = event_begin("start");
    text_add(line, ", \"runtime\": \"litert\", \"version\": ");
    text_quote(line, job->library.version);
    text_add(line, ", \"library\": ");
    text_quote(line, slash ? slash + 1 : job->library.path);
    text_add(line, ", \"sha256\": ");
    text_quote(line, job->library.sha256);
    text_add(line, ", \"threads\": %d", job->threads);
    add_cores(line);
    text_add(line, ", \"python\": null, \"runner\": \"native\"");
    event_keep(line);
}

int main(int count, char **arguments) {
    struct job job = {0};
    struct litert api;
    char why[WHY_BYTES] = "";
    if (count != 2) {
        fprintf(stderr, "usage: %s job.json\n", count ? arguments[0] : "edgeprune-runner");
        return NO_JOB;
    }
    if (!job_read(&job, arguments[1], why, sizeof why)) {
        fprintf(stderr, "%s: %s\n", arguments[1], why);
        return NO_JOB;
    }
    events_open();
    if (job.has_cores && !take_cores(&job)) { /* before the runtime makes its threads: they inherit it */
        return NO_CORES;
    }
    if (strcmp(job.runtime, "litert") != 0) {
        fprintf(stderr, "the native runner has the runtime litert, not %s\n", job.runtime);
        return NO_RUNTIME;
    }
    if (!litert_open(&api, job.library.path, why, sizeof why)) {
        fprintf(stderr, "cannot load %s: %s\n", job.library.path, why);
        return NO_RUNTIME;
    }
    send_start(&job);
    conditions_send("before");
    if (job.mode == MODE_TIME) {
        time_cases(&job, &api);
    } else {
        one_by_one(&job, &api);
    }
    conditions_send("after");
    event_send(event_begin("end"));
    fflush(NULL);
    _exit(0); /* the kernel takes all back at once; libraries would tidy up first */
}
