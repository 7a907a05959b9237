/* Memory that is there or ends the process: a runner without memory has nothing to say. */
#ifndef EDGEPRUNE_ALLOC_H
#define EDGEPRUNE_ALLOC_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline void *must(void *memory) {
    if (memory == NULL) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* `count` zeroed elements; never NULL, not even for none. */
static inline void *made(size_t count, size_t size) { return must(calloc(count ? count : 1, size ? size : 1)); }

static inline char *copied(const char *text) { return must(strdup(text)); }

#endif
