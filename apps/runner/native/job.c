#include "job.h"

#include <errno.h>
#include <limits.h>
#include <math.h>

#include "alloc.h"
#include "json.h"

static const char *const MODES[] = {"time", "infer", "memory", "profile", NULL};
static const char *const SCHEDULES[] = {"interleaved", "mirrored", "shuffled", "sequential", NULL};

/* What is wrong first; the getters go on with nothing, so that the job reads as a plain list of its members. */
struct check {
    char *why;
    size_t room;
    bool good;
};

static void refuse(struct check *check, const char *name, const char *what) {
    if (check->good) {
        snprintf(check->why, check->room, "`%s` %s", name, what);
    }
    check->good = false;
}

static const char *text_of(struct check *check, const struct json *object, const char *name) {
    const struct json *value = json_member(object, name);
    if (value == NULL || value->kind != JSON_STRING) {
        refuse(check, name, "is not there or no string");
        return "";
    }
    return value->text;
}

static double number_of(struct check *check, const struct json *object, const char *name, double least) {
    const struct json *value = json_member(object, name);
    if (value == NULL || value->kind != JSON_NUMBER || !isfinite(value->number) || value->number < least) {
        refuse(check, name, "is not there, no number or too small");
        return least;
    }
    return value->number;
}

static double number_or(struct check *check, const struct json *object, const char *name, double otherwise) {
    return json_member(object, name) ? number_of(check, object, name, 0) : otherwise;
}

static long whole_of(struct check *check, const struct json *object, const char *name, long least) {
    double value = number_of(check, object, name, (double)least);
    if (value > INT_MAX || value != floor(value)) {
        refuse(check, name, "is no whole number that fits");
        return least;
    }
    return (long)value;
}

static bool flag_of(struct check *check, const struct json *object, const char *name) {
    const struct json *value = json_member(object, name);
    if (value == NULL || (value->kind != JSON_TRUE && value->kind != JSON_FALSE)) {
        refuse(check, name, "is neither true nor false");
        return false;
    }
    return value->kind == JSON_TRUE;
}

static int choice_of(struct check *check, const struct json *object, const char *name, const char *const *known) {
    const char *text = text_of(check, object, name);
    for (int i = 0; known[i] != NULL; i++) {
        if (strcmp(known[i], text) == 0) {
            return i;
        }
    }
    refuse(check, name, "is none that this runner knows");
    return 0;
}

static const struct json *list_of(struct check *check, const struct json *object, const char *name) {
    const struct json *value = json_member(object, name);
    if (value == NULL || value->kind != JSON_ARRAY) {
        refuse(check, name, "is not there or no list");
        return NULL;
    }
    return value;
}

/* A list of strings that may be missing, after a first one that may be NULL. */
static struct words words_of(struct check *check, const struct json *object, const char *name, const char *first) {
    struct words words = {.given = json_member(object, name) != NULL};
    const struct json *list = words.given ? list_of(check, object, name) : NULL;
    words.items = made((list ? list->count : 0) + 1, sizeof *words.items);
    if (first != NULL) {
        words.items[words.count++] = first;
    }
    for (const struct json *entry = list ? list->child : NULL; entry != NULL; entry = entry->next) {
        if (entry->kind != JSON_STRING) {
            refuse(check, name, "is no list of strings");
            break;
        }
        words.items[words.count++] = entry->text;
    }
    return words;
}

static void read_cases(struct job *job, struct check *check) {
    const struct json *list = list_of(check, job->tree, "cases");
    if (list == NULL) {
        return;
    }
    job->cases = made(list->count, sizeof *job->cases);
    for (const struct json *entry = list->child; entry != NULL; entry = entry->next) {
        struct job_case *item = &job->cases[job->case_count++];
        item->id = text_of(check, entry, "id");
        item->model = text_of(check, entry, "model");
        if (job->mode == MODE_INFER) {
            item->inputs = words_of(check, entry, "more_inputs", text_of(check, entry, "inputs"));
            item->outputs = text_of(check, entry, "outputs");
            item->input_names = words_of(check, entry, "input_names", NULL);
            item->output_names = words_of(check, entry, "output_names", NULL);
        }
        item->first_round = json_member(entry, "first_round") ? whole_of(check, entry, "first_round", 0) : 0;
    }
}

static void read_cores(struct job *job, struct check *check) {
    job->has_cores = json_member(job->tree, "cores") != NULL;
    const struct json *list = job->has_cores ? list_of(check, job->tree, "cores") : NULL;
    if (list == NULL) {
        return;
    }
    job->cores = made(list->count, sizeof *job->cores);
    for (const struct json *entry = list->child; entry != NULL; entry = entry->next) {
        if (entry->kind != JSON_NUMBER || entry->number < 0 || entry->number > INT_MAX) {
            refuse(check, "cores", "are not numbers of cores");
            return;
        }
        job->cores[job->core_count++] = (int)entry->number;
    }
}

static void read_timing(struct job *job, struct check *check) {
    const struct json *tree = job->tree;
    job->schedule = (enum schedule)choice_of(check, tree, "schedule", SCHEDULES);
    job->rounds = whole_of(check, tree, "rounds", 0);
    job->keep_loaded = flag_of(check, tree, "keep_loaded");
    job->warm_up_runs = whole_of(check, tree, "warm_up_runs", 0);
    job->warm_up_s = number_of(check, tree, "warm_up_s", 0);
    job->warm_up_most_s = number_or(check, tree, "warm_up_most_s", 0);
    job->steady = number_or(check, tree, "steady", 0);
    job->min_runs = whole_of(check, tree, "min_runs", 0);
    job->min_s = number_of(check, tree, "min_s", 0);
    job->max_samples = whole_of(check, tree, "max_samples", 1);
    job->seed = (uint64_t)fmin(number_or(check, tree, "seed", 0), 9e15); /* up to 2^53 a number here is exact */
}

static void read_members(struct job *job, struct check *check) {
    const struct json *tree = job->tree, *library = json_member(tree, "library");
    job->runtime = text_of(check, tree, "runtime");
    job->mode = (enum mode)choice_of(check, tree, "mode", MODES);
    job->threads = (int)whole_of(check, tree, "threads", 1);
    job->library.path = text_of(check, library, "path");
    job->library.version = text_of(check, library, "version");
    job->library.sha256 = text_of(check, library, "sha256");
    read_cases(job, check);
    read_cores(job, check);
    if (job->mode == MODE_TIME) {
        read_timing(job, check);
    } else {
        job->runs = whole_of(check, tree, "runs", 0);
        job->warm_up_runs = job->mode == MODE_PROFILE ? whole_of(check, tree, "warm_up_runs", 0) : 0;
    }
}

static char *read_all(const char *path, size_t *length, char *why, size_t room) {
    FILE *file = fopen(path, "rb");
    size_t size = 0, capacity = 1 << 16;
    if (file == NULL) {
        snprintf(why, room, "%s", strerror(errno));
        return NULL;
    }
    char *data = must(malloc(capacity));
    while ((size += fread(data + size, 1, capacity - 1 - size, file)) == capacity - 1) {
        data = must(realloc(data, capacity *= 2));
    }
    bool bad = ferror(file) != 0; /* a folder can be opened, not read */
    fclose(file);
    if (bad) {
        snprintf(why, room, "cannot be read");
        free(data);
        return NULL;
    }
    data[size] = '\0';
    *length = size;
    return data;
}

bool job_read(struct job *job, const char *path, char *why, size_t room) {
    size_t length = 0;
    memset(job, 0, sizeof *job);
    char *data = read_all(path, &length, why, room);
    if (data == NULL) {
        return false;
    }
    job->tree = json_parse(data, length, why, room);
    free(data);
    if (job->tree == NULL) {
        return false;
    }
    const struct json *version = json_member(job->tree, "version");
    if (version == NULL || version->kind != JSON_NUMBER || version->number != JOB_VERSION) {
        snprintf(why, room, "this runner reads jobs of version %d", JOB_VERSION);
        if (version != NULL && version->kind == JSON_NUMBER) {
            snprintf(why, room, "this runner reads jobs of version %d, not %g", JOB_VERSION, version->number);
        }
        return false;
    }
    struct check check = {why, room, true};
    read_members(job, &check);
    return check.good;
}
