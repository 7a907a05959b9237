/* The lines that the runner writes on stdout, which nobody else may write on. */
#ifndef EDGEPRUNE_EVENTS_H
#define EDGEPRUNE_EVENTS_H

#include "text.h"

/* Keeps stdout for our lines alone: what libraries print there goes to stderr from now on. */
void events_open(void);

/* Begins the line of an event. Fields are added to what it returns: `, "name": value`. */
struct text *event_begin(const char *name);

/* As event_begin, of a case. */
struct text *event_of(const char *name, const char *case_id);

/* Ends the line, which goes out with the next one that is sent: each write wakes others on the device. */
void event_keep(struct text *line);

/* Ends the line and writes all; if nobody reads stdout any more, ends the process at once. */
void event_send(struct text *line);

void event_error(const char *case_id, const char *kind, const char *message);

#endif
