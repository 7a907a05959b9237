#include "random.h"

#include <math.h>
#include <string.h>

/* SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). */
uint64_t random_bits(struct random *random) {
    uint64_t z = random->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

size_t random_below(struct random *random, size_t count) {
    uint64_t fair = UINT64_MAX - UINT64_MAX % count; /* a multiple of count: what lies above would favour the first */
    uint64_t bits;
    do {
        bits = random_bits(random);
    } while (bits >= fair);
    return (size_t)(bits % count);
}

static double uniform(struct random *random) { /* in (0, 1] */
    return (double)((random_bits(random) >> 11) + 1) * 0x1p-53;
}

/* Box and Muller 1958. A value too small for a normal half float is 0. */
static double normal(struct random *random) {
    double radius = sqrt(-2 * log(uniform(random)));
    double value = radius * cos(6.283185307179586 * uniform(random));
    return fabs(value) < 0x1p-14 ? 0 : value;
}

/* The nearest half float of a value between 2^-14 and 2^15, or 0. */
static uint16_t half(double value) {
    int exponent;
    uint16_t sign = value < 0 ? 0x8000 : 0;
    if (value == 0) {
        return 0;
    }
    double fraction = frexp(fabs(value), &exponent); /* in [0.5, 1) */
    unsigned mantissa = (unsigned)lrint(fraction * 2048); /* 1024..2048; a carry moves on into the exponent */
    return (uint16_t)(sign | (((unsigned)(exponent + 14) << 10) + (mantissa - 1024)));
}

void random_fill(struct random *random, const struct spec *spec, void *values) {
    size_t count = spec_count(spec), bytes = spec->element->bytes;
    unsigned char *place = values;
    for (size_t i = 0; i < count; i++, place += bytes) {
        if (spec->litert == LITERT_FLOAT32) {
            float value = (float)normal(random);
            memcpy(place, &value, sizeof value);
        } else if (spec->litert == LITERT_FLOAT64) {
            double value = normal(random);
            memcpy(place, &value, sizeof value);
        } else if (spec->litert == LITERT_FLOAT16) {
            uint16_t value = half(normal(random));
            memcpy(place, &value, sizeof value);
        } else {
            uint64_t bits = random_bits(random) >> (spec->litert == LITERT_BOOL ? 63 : 0);
            memcpy(place, &bits, bytes); /* the low bytes: ours are little-endian machines */
        }
    }
}
