#include "schedule.h"

#include "alloc.h"
#include "random.h"

/* Puts the order of a round into `order`: all cases, once each. */
static void order_round(const struct job *job, long round, struct random *random, size_t *order) {
    size_t count = job->case_count;
    for (size_t i = 0; i < count; i++) {
        order[i] = job->schedule == MIRRORED && round % 2 ? count - 1 - i : i;
    }
    for (size_t i = count; job->schedule == SHUFFLED && i > 1; i--) { /* Fisher and Yates */
        size_t other = random_below(random, i), kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
}

struct place *schedule_made(const struct job *job, size_t *count) {
    struct place *places = made(job->case_count * (size_t)job->rounds, sizeof *places);
    *count = 0;
    if (job->schedule == SEQUENTIAL) {
        for (size_t i = 0; i < job->case_count; i++) {
            for (long round = job->cases[i].first_round; round < job->rounds; round++) {
                places[(*count)++] = (struct place){i, round};
            }
        }
        return places;
    }
    struct random random = {job->seed};
    size_t *order = made(job->case_count, sizeof *order);
    for (long round = 0; round < job->rounds; round++) {
        order_round(job, round, &random, order);
        for (size_t i = 0; i < job->case_count; i++) {
            if (round >= job->cases[order[i]].first_round) {
                places[(*count)++] = (struct place){order[i], round};
            }
        }
    }
    free(order);
    return places;
}
