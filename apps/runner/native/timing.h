/* Timed runs of a model: the warm-up, and visits of many samples. */
#ifndef EDGEPRUNE_TIMING_H
#define EDGEPRUNE_TIMING_H

#include <stdint.h>

#include "job.h"
#include "model.h"

int64_t clock_ns(void); /* of a clock that does not jump */

/* Runs until the job's limits are met and the latency is steady, and sends `warm`.
   `*batch` is how many runs make a sample: more than one only where a run is so short that the limits would give more
   than max_samples. */
bool warm_up(struct model *model, const struct job *job, const struct job_case *item, long *batch,
             struct failure *failure);

/* One visit: one run to bring the caches back, then samples (means of `batch` runs) up to both limits; sends `samples`.
   Samples during which the scheduler took the core away are marked and do not count; on a machine so busy that this
   never ends, the visit stops after four times its length. */
bool timed_visit(struct model *model, const struct job *job, const struct job_case *item, long round, long batch,
                 struct failure *failure);

#endif
