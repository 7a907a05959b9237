#include "element.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* LiteRT's numbers are those of TfLiteType. */
static const struct element ELEMENTS[] = {
    {LITERT_FLOAT32, "float32", "<f4", 4}, {2, "int32", "<i4", 4},   {3, "uint8", "|u1", 1},
    {4, "int64", "<i8", 8},                {LITERT_BOOL, "bool", "|b1", 1}, {7, "int16", "<i2", 2},
    {9, "int8", "|i1", 1},                 {LITERT_FLOAT16, "float16", "<f2", 2}, {LITERT_FLOAT64, "float64", "<f8", 8},
};
enum { COUNT = sizeof ELEMENTS / sizeof *ELEMENTS };

const struct element *element_of_litert(int type) {
    for (int i = 0; i < COUNT; i++) {
        if (ELEMENTS[i].litert == type) {
            return &ELEMENTS[i];
        }
    }
    return NULL;
}

const struct element *element_of_npy(const char *code) {
    for (int i = 0; i < COUNT; i++) {
        if (strcmp(ELEMENTS[i].npy, code) == 0) {
            return &ELEMENTS[i];
        }
    }
    return NULL;
}

size_t spec_count(const struct spec *spec) {
    size_t count = 1;
    for (int i = 0; i < spec->rank; i++) {
        count *= (size_t)spec->shape[i];
    }
    return count;
}

size_t spec_bytes(const struct spec *spec) { return spec->element ? spec_count(spec) * spec->element->bytes : 0; }

void shape_text(char *out, size_t room, int rank, const int64_t *shape) {
    size_t used = (size_t)snprintf(out, room, "(");
    for (int i = 0; i < rank && used < room; i++) {
        used += (size_t)snprintf(out + used, room - used, i ? ", %" PRId64 : "%" PRId64, shape[i]);
    }
    if (used < room) {
        snprintf(out + used, room - used, rank == 1 ? ",)" : ")");
    }
}
