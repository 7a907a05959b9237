/* Outputs of given inputs. */
#ifndef EDGEPRUNE_INFER_H
#define EDGEPRUNE_INFER_H

#include "job.h"
#include "model.h"

/* Runs each row of the case's inputs alone (batch 1) and saves the outputs as the model gives them; the model is
   loaded here and freed by the caller. */
bool infer_case(const struct job *job, struct litert *api, const struct job_case *item, struct model *model,
                struct failure *failure);

#endif
