/* The four kinds of work: what is done with the cases of a job. */
#ifndef EDGEPRUNE_MODES_H
#define EDGEPRUNE_MODES_H

#include "job.h"
#include "litert.h"

/* Visits the cases in the order of the schedule. Loaded models are kept between rounds, or loaded anew each time. */
void time_cases(const struct job *job, struct litert *api);

/* Infers, measures the memory of, or profiles one case after the other. */
void one_by_one(const struct job *job, struct litert *api);

#endif
