#include "peak.h"

#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static long long status_bytes(const char *field) {
    char line[256];
    long long kib = NOT_TOLD;
    FILE *file = fopen("/proc/self/status", "r");
    if (file == NULL) {
        return NOT_TOLD;
    }
    while (fgets(line, sizeof line, file)) {
        if (strncmp(line, field, strlen(field)) == 0 && sscanf(line + strlen(field), ": %lld", &kib) == 1) {
            break;
        }
    }
    fclose(file);
    return kib < 0 ? NOT_TOLD : kib * 1024;
}

long long peak_start(void) {
#if defined(__GLIBC__)
    malloc_trim(0);
#elif defined(M_PURGE)
    mallopt(M_PURGE, 0); /* bionic's */
#endif
    int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (file < 0) {
        return NOT_TOLD;
    }
    ssize_t wrote = write(file, "5", 1);
    close(file);
    return wrote == 1 ? status_bytes("VmRSS") : NOT_TOLD;
}

long long peak_since(long long baseline) {
    long long peak = status_bytes("VmHWM");
    if (baseline < 0 || peak < 0) {
        return NOT_TOLD;
    }
    return peak > baseline ? peak - baseline : 0;
}

void peak_field(struct text *line, long long bytes) {
    if (bytes < 0) {
        text_add(line, ", \"peak_bytes\": null");
    } else {
        text_add(line, ", \"peak_bytes\": %lld", bytes);
    }
}
