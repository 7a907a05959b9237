/* What each kernel of a model takes, in place: LiteRT's own profiler. */
#ifndef EDGEPRUNE_PROFILE_H
#define EDGEPRUNE_PROFILE_H

#include "job.h"
#include "model.h"

/* Runs a model that was loaded for profiling and sends `profile`. */
bool profile_send(struct model *model, const struct job *job, const struct job_case *item, struct failure *failure);

#endif
