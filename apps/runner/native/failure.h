/* Why a case cannot be run; the job goes on with the next one. */
#ifndef EDGEPRUNE_FAILURE_H
#define EDGEPRUNE_FAILURE_H

#include <stdbool.h>

struct failure {
    const char *kind; /* "load", "input" or "run" */
    char message[768];
};

/* Notes the failure; always false, so that it can be returned. */
bool fail(struct failure *failure, const char *kind, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
