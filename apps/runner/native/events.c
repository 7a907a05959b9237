#include "events.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { FIRST_CHANNEL = 63, NOBODY_READS = 5 };

static int channel = 1;
static struct text line; /* the one that is being made, after those that are kept */

void events_open(void) {
    signal(SIGPIPE, SIG_IGN); /* a closed stdout is then an error of write(), also where a library asks for SIGPIPE */
    fflush(stdout);
    int copy = fcntl(1, F_DUPFD_CLOEXEC, FIRST_CHANNEL);
    if (copy < 0 || dup2(2, 1) < 0) {
        perror("stdout or stderr");
        exit(1);
    }
    channel = copy;
}

struct text *event_begin(const char *name) {
    text_add(&line, "{\"event\": ");
    text_quote(&line, name);
    return &line;
}

struct text *event_of(const char *name, const char *case_id) {
    event_begin(name);
    text_add(&line, ", \"case\": ");
    text_quote(&line, case_id);
    return &line;
}

void event_keep(struct text *text) { text_add(text, "}\n"); }

void event_send(struct text *text) {
    event_keep(text);
    for (size_t done = 0; done < text->length;) {
        ssize_t wrote = write(channel, text->data + done, text->length - done);
        if (wrote >= 0) {
            done += (size_t)wrote;
        } else if (errno != EINTR) {
            _exit(NOBODY_READS); /* the host is gone: to go on would only heat the device */
        }
    }
    text->length = 0;
}

void event_error(const char *case_id, const char *kind, const char *message) {
    struct text *text = event_of("error", case_id);
    text_add(text, ", \"kind\": ");
    text_quote(text, kind);
    text_add(text, ", \"message\": ");
    text_quote(text, message);
    event_send(text);
}
