/* The order in which the cases of a job are visited. */
#ifndef EDGEPRUNE_SCHEDULE_H
#define EDGEPRUNE_SCHEDULE_H

#include "job.h"

struct place {
    size_t index; /* of the case */
    long round;
};

/* All visits, one after the other; the caller frees them. */
struct place *schedule_made(const struct job *job, size_t *count);

#endif
