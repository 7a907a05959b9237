/* Which of a file's inputs and outputs a case means. */
#ifndef EDGEPRUNE_MATCH_H
#define EDGEPRUNE_MATCH_H

#include "job.h"
#include "model.h"

struct matches {
    size_t count;
    size_t *places; /* in the graph */
};

/* For each input of the case its place; false if the file takes another number, or has none of a name. */
bool match_inputs(const struct model *model, const struct job_case *item, struct matches *matches,
                  struct failure *failure);

/* The place of each output that is wanted, in the order in which they are. */
bool match_outputs(const struct model *model, const struct job_case *item, struct matches *matches,
                   struct failure *failure);

#endif
