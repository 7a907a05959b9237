/* The kernel's high-water mark of this process's resident memory. */
#ifndef EDGEPRUNE_PEAK_H
#define EDGEPRUNE_PEAK_H

#include "text.h"

enum { NOT_TOLD = -1 };

/* Gives free memory back and restarts the mark; bytes resident now, or NOT_TOLD. */
long long peak_start(void);

/* Bytes by which the mark is above `baseline`, or NOT_TOLD. */
long long peak_since(long long baseline);

/* Adds the field `peak_bytes`, null where it is not told. */
void peak_field(struct text *line, long long bytes);

#endif
