/* Numbers that are the same for the same seed, on every machine. */
#ifndef EDGEPRUNE_RANDOM_H
#define EDGEPRUNE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#include "element.h"

struct random {
    uint64_t state;
};

uint64_t random_bits(struct random *random);

/* A uniform number of 0..count-1; count is at least 1. */
size_t random_below(struct random *random, size_t count);

/* Fills a tensor: standard normal values (never NaN or denormal), integers of the full range. */
void random_fill(struct random *random, const struct spec *spec, void *values);

#endif
