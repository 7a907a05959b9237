/* Text that grows, and JSON written into it. */
#ifndef EDGEPRUNE_TEXT_H
#define EDGEPRUNE_TEXT_H

#include <stddef.h>

struct text {
    char *data; /* ends with a zero, which `length` does not count */
    size_t length, room;
};

void text_add(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Adds a JSON string in ASCII. Bytes that are no UTF-8 become U+DC80..U+DCFF, as Python writes names of files. */
void text_quote(struct text *text, const char *value);

/* Adds a number, or null where it is not finite. */
void text_number(struct text *text, double value, int decimals);

/* Length in bytes (1-4) of the UTF-8 sequence at `bytes`, its code point in `*point`; 0 if it is none. */
int utf8_read(const char *bytes, unsigned *point);

#endif
