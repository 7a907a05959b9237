#include "text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "alloc.h"

static void reserve(struct text *text, size_t more) {
    size_t wanted = text->length + more + 1;
    if (wanted <= text->room) {
        return;
    }
    text->room = wanted * 2 < 256 ? 256 : wanted * 2;
    text->data = must(realloc(text->data, text->room));
}

void text_add(struct text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0) {
        return;
    }
    reserve(text, (size_t)length);
    va_start(arguments, format);
    vsnprintf(text->data + text->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    text->length += (size_t)length;
}

int utf8_read(const char *bytes, unsigned *point) {
    const unsigned char *b = (const unsigned char *)bytes;
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    int length = b[0] < 0x80 ? 1 : b[0] < 0xC0 ? 0 : b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : b[0] < 0xF8 ? 4 : 0;
    if (length == 0) {
        return 0;
    }
    unsigned value = length == 1 ? b[0] : b[0] & (0x7Fu >> length);
    for (int i = 1; i < length; i++) {
        if ((b[i] & 0xC0) != 0x80) { /* a zero at the end stops here too */
            return 0;
        }
        value = value << 6 | (b[i] & 0x3Fu);
    }
    if (value < least[length] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
        return 0;
    }
    *point = value;
    return length;
}

void text_quote(struct text *text, const char *value) {
    text_add(text, "\"");
    while (*value) {
        unsigned point = 0;
        int length = utf8_read(value, &point);
        if (length == 0) {
            point = 0xDC00u | (unsigned char)*value;
            length = 1;
        }
        value += length;
        if (point == '"' || point == '\\') {
            text_add(text, "\\%c", (int)point);
        } else if (point >= 0x20 && point < 0x7F) {
            text_add(text, "%c", (int)point);
        } else if (point < 0x10000) {
            text_add(text, "\\u%04x", point);
        } else {
            text_add(text, "\\u%04x\\u%04x", 0xD800 + ((point - 0x10000) >> 10), 0xDC00 + ((point - 0x10000) & 0x3FF));
        }
    }
    text_add(text, "\"");
}

void text_number(struct text *text, double value, int decimals) {
    if (isfinite(value)) {
        text_add(text, "%.*f", decimals, value);
    } else {
        text_add(text, "null");
    }
}
