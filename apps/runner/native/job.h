/* A job, version 1: the format of the Python runner, whose head describes it, and the library to load. */
#ifndef EDGEPRUNE_JOB_H
#define EDGEPRUNE_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json;

enum { JOB_VERSION = 1 };
enum mode { MODE_TIME, MODE_INFER, MODE_MEMORY, MODE_PROFILE };
enum schedule { INTERLEAVED, MIRRORED, SHUFFLED, SEQUENTIAL };

struct words {
    bool given;
    size_t count;
    const char **items;
};

struct job_case {
    const char *id, *model;
    /* of "infer" */
    struct words inputs; /* paths: one at least */
    const char *outputs; /* the path of the first; see output_path in infer.c */
    struct words input_names, output_names;
    long first_round;
};

struct job {
    struct json *tree; /* owns the strings */
    const char *runtime;
    enum mode mode;
    int threads;
    size_t case_count;
    struct job_case *cases;
    struct {
        const char *path, *version, *sha256;
    } library;
    bool has_cores;
    size_t core_count;
    int *cores;
    /* of the modes but "time" */
    long runs;
    /* of "time"; warm_up_runs of "profile" too */
    enum schedule schedule;
    long rounds, warm_up_runs, min_runs, max_samples;
    bool keep_loaded;
    double warm_up_s, warm_up_most_s, steady, min_s;
    uint64_t seed;
};

/* Reads a job; false and `why` if it is none of version 1. */
bool job_read(struct job *job, const char *path, char *why, size_t room);

#endif
