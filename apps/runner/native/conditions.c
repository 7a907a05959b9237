#include "conditions.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include "alloc.h"
#include "events.h"

enum { FIELDS = 9 }; /* of /proc/stat's first line: cpu user nice system idle iowait irq softirq steal */

/* The first line of a file without the space around it; false where it cannot be read. */
static bool first_line(const char *path, char *line, size_t room) {
    FILE *file = fopen(path, "r");
    bool good = file != NULL && fgets(line, (int)room, file) != NULL;
    if (file != NULL) {
        fclose(file);
    }
    if (!good) {
        return false;
    }
    size_t start = strspn(line, " \t\r\n"), length = strlen(line);
    while (length > start && isspace((unsigned char)line[length - 1])) {
        length--;
    }
    memmove(line, line + start, length - start);
    line[length - start] = '\0';
    return true;
}

/* A file that holds one whole number. */
static bool whole_number(const char *path, double *value) {
    char line[64], *end;
    if (!first_line(path, line, sizeof line) || line[0] == '\0') {
        return false;
    }
    *value = (double)strtoll(line, &end, 10);
    return *end == '\0';
}

/* The sum of some of the machine's counters of time, in seconds; negative where it does not tell. */
static double counted_s(const int *places, int count) {
    char line[512];
    double ticks[FIELDS] = {0}, sum = 0;
    if (!first_line("/proc/stat", line, sizeof line) || strncmp(line, "cpu", 3) != 0) {
        return -1;
    }
    char *at = line + strcspn(line, " ");
    for (int i = 1; i < FIELDS; i++) {
        char *end;
        ticks[i] = (double)strtoull(at, &end, 10);
        if (end == at) {
            return -1;
        }
        at = end;
    }
    for (int i = 0; i < count; i++) {
        sum += ticks[places[i]];
    }
    return sum / (double)sysconf(_SC_CLK_TCK);
}

double conditions_steal_s(void) { return counted_s((const int[]){8}, 1); }

static double busy_s(void) { return counted_s((const int[]){1, 2, 3, 6, 7}, 5); }

static void add_told(struct text *line, const char *name, double value, int decimals) {
    text_add(line, ", \"%s\": ", name);
    text_number(line, value < 0 ? NAN : value, decimals);
}

/* Load of the last minute, and tasks that run or want to. Android hides the file from some users. */
static void add_load(struct text *line) {
    char text[128];
    double load = -1;
    int running = -1;
    struct sysinfo info;
    if (!first_line("/proc/loadavg", text, sizeof text) || sscanf(text, "%lf %*f %*f %d/", &load, &running) < 1) {
        load = sysinfo(&info) == 0 ? (double)info.loads[0] / 65536 : -1;
    }
    add_told(line, "load_1min", load, 2);
    add_told(line, "running", running, 0);
}

static double clock_seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The entries of a folder that begin with `start`, and then with a digit if so wanted, sorted; NULL ends them. */
static char **entries(const char *folder, const char *start, bool digit) {
    size_t count = 0, room = 16;
    char **names = made(room, sizeof *names);
    DIR *directory = opendir(folder);
    for (struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        size_t length = strlen(start);
        if (strncmp(entry->d_name, start, length) != 0 || (digit && !isdigit((unsigned char)entry->d_name[length]))) {
            continue;
        }
        if (count + 2 > room) {
            names = must(realloc(names, (room *= 2) * sizeof *names));
        }
        names[count++] = copied(entry->d_name);
    }
    if (directory != NULL) {
        closedir(directory);
    }
    qsort(names, count, sizeof *names, by_name);
    names[count] = NULL;
    return names;
}

static void free_entries(char **names) {
    for (char **name = names; *name != NULL; name++) {
        free(*name);
    }
    free(names);
}

static void add_frequencies(struct text *line, const char *sysfs) {
    char folder[1024], path[2048];
    double khz;
    const char *between = "";
    snprintf(folder, sizeof folder, "%s/devices/system/cpu", sysfs);
    char **names = entries(folder, "cpu", true);
    text_add(line, ", \"frequency_mhz\": [");
    for (char **name = names; *name != NULL; name++) {
        snprintf(path, sizeof path, "%s/%s/cpufreq/scaling_cur_freq", folder, *name);
        if (whole_number(path, &khz) && khz >= 0) {
            text_add(line, "%s%.3f", between, khz / 1e3);
            between = ", ";
        }
    }
    text_add(line, "]");
    free_entries(names);
}

static void add_temperatures(struct text *line, const char *sysfs) {
    char folder[1024], path[2048], type[256], key[1024];
    double millidegrees;
    const char *between = "";
    snprintf(folder, sizeof folder, "%s/class/thermal", sysfs);
    char **names = entries(folder, "thermal_zone", false);
    text_add(line, ", \"temperature_c\": {");
    for (char **name = names; *name != NULL; name++) {
        snprintf(path, sizeof path, "%s/%s/temp", folder, *name);
        if (!whole_number(path, &millidegrees)) {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s/type", folder, *name);
        if (!first_line(path, type, sizeof type) || type[0] == '\0') {
            strcpy(type, "unknown");
        }
        snprintf(key, sizeof key, "%s:%s", *name, type);
        text_add(line, "%s", between);
        text_quote(line, key);
        text_add(line, ": %.3f", millidegrees / 1e3);
        between = ", ";
    }
    text_add(line, "}");
    free_entries(names);
}

void conditions_send(const char *when) {
    const char *sysfs = getenv("SYSFS_PATH");
    struct text *line = event_begin("conditions");
    text_add(line, ", \"when\": \"%s\"", when);
    add_told(line, "time", clock_seconds(CLOCK_REALTIME), 6);
    add_told(line, "clock_s", clock_seconds(CLOCK_MONOTONIC), 6);
    add_load(line);
    add_told(line, "cpu_steal_s", conditions_steal_s(), 2);
    add_told(line, "cpu_busy_s", busy_s(), 2);
    add_told(line, "cpus", (double)sysconf(_SC_NPROCESSORS_ONLN), 0);
    add_told(line, "own_s", clock_seconds(CLOCK_PROCESS_CPUTIME_ID), 6);
    add_frequencies(line, sysfs ? sysfs : "/sys");
    add_temperatures(line, sysfs ? sysfs : "/sys");
    event_keep(line); /* a case, or the end, comes next */
}
