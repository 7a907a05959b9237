#include "json.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "alloc.h"
#include "text.h"

enum { DEEPEST = 64 }; /* levels; a job has four */

struct reader {
    const char *start, *at, *end; /* *end is a zero, so one byte may always be looked at */
    char *why;
    size_t room;
};

static bool wrong(struct reader *r, const char *what) {
    snprintf(r->why, r->room, "%s at byte %zu", what, (size_t)(r->at - r->start));
    return false;
}

static void skip_space(struct reader *r) {
    while (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r') {
        r->at++;
    }
}

static bool take(struct reader *r, const char *word) {
    size_t length = strlen(word);
    if ((size_t)(r->end - r->at) < length || memcmp(r->at, word, length) != 0) {
        return false;
    }
    r->at += length;
    return true;
}

static bool digits(struct reader *r) {
    const char *first = r->at;
    while (*r->at >= '0' && *r->at <= '9') {
        r->at++;
    }
    return r->at > first;
}

static bool read_number(struct reader *r, struct json *value) {
    const char *first = r->at;
    if (*r->at == '-') {
        r->at++;
    }
    if (*r->at == '0') {
        r->at++;
    } else if (!digits(r)) {
        return wrong(r, "no value");
    }
    if (*r->at == '.') {
        r->at++;
        if (!digits(r)) {
            return wrong(r, "no digits behind the point");
        }
    }
    if (*r->at == 'e' || *r->at == 'E') {
        r->at++;
        if (*r->at == '+' || *r->at == '-') {
            r->at++;
        }
        if (!digits(r)) {
            return wrong(r, "no digits in the exponent");
        }
    }
    value->kind = JSON_NUMBER;
    value->number = strtod(first, NULL); /* our grammar is a part of its, and the locale is always "C" */
    return true;
}

static int hexadecimal(char c) {
    static const char known[] = "0123456789abcdef";
    const char *found = c ? strchr(known, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c) : NULL;
    return found ? (int)(found - known) : -1;
}

static bool read_unit(struct reader *r, unsigned *unit) {
    *unit = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        int digit = hexadecimal(*r->at);
        if (digit < 0) {
            return wrong(r, "no four hexadecimal digits");
        }
        *unit = *unit << 4 | (unsigned)digit;
    }
    return true;
}

static char *put_utf8(char *out, unsigned point) {
    if (point < 0x80) {
        *out++ = (char)point;
        return out;
    }
    int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const unsigned heads[] = {0, 0xC0, 0xE0, 0xF0};
    *out++ = (char)(heads[more] | point >> (6 * more));
    for (int i = more - 1; i >= 0; i--) {
        *out++ = (char)(0x80 | (point >> (6 * i) & 0x3F));
    }
    return out;
}

/* The code point of \uXXXX; a lone U+DC80..U+DCFF is a byte of a file name that is no UTF-8, as Python writes it. */
static bool read_point(struct reader *r, char **out) {
    unsigned unit, second;
    if (!read_unit(r, &unit)) {
        return false;
    }
    if (unit == 0) {
        return wrong(r, "a zero in a string");
    }
    if (unit >= 0xDC80 && unit <= 0xDCFF) {
        *(*out)++ = (char)(unit & 0xFF);
        return true;
    }
    if (unit >= 0xD800 && unit < 0xDC00 && take(r, "\\u")) {
        if (!read_unit(r, &second)) {
            return false;
        }
        if (second < 0xDC00 || second > 0xDFFF) {
            return wrong(r, "half a surrogate pair");
        }
        unit = 0x10000 + ((unit - 0xD800) << 10) + (second - 0xDC00);
    }
    if (unit >= 0xD800 && unit < 0xE000) {
        return wrong(r, "half a surrogate pair");
    }
    *out = put_utf8(*out, unit);
    return true;
}

static bool read_escape(struct reader *r, char **out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = *r->at;
    const char *found = c ? strchr(from, c) : NULL;
    if (found) {
        r->at++;
        *(*out)++ = to[found - from];
        return true;
    }
    if (c != 'u') {
        return wrong(r, "an unknown escape");
    }
    r->at++;
    return read_point(r, out);
}

static char *read_string(struct reader *r) {
    if (*r->at != '"') {
        wrong(r, "no string");
        return NULL;
    }
    const char *close = ++r->at; /* an upper bound of the length: escapes only shrink */
    while (close < r->end && *close != '"') {
        close += *close == '\\' && close + 1 < r->end ? 2 : 1;
    }
    char *text = made((size_t)(close - r->at) + 1, 1), *out = text;
    bool good = true;
    while (good && *r->at != '"') {
        unsigned point = 0;
        int length = utf8_read(r->at, &point);
        if (length == 0 || point < 0x20) {
            good = wrong(r, r->at == r->end ? "no end of a string" : "a bad byte in a string");
        } else if (point == '\\') {
            r->at++;
            good = read_escape(r, &out);
        } else {
            memcpy(out, r->at, (size_t)length);
            out += length;
            r->at += length;
        }
    }
    if (!good) {
        free(text);
        return NULL;
    }
    r->at++;
    return text;
}

static struct json *read_value(struct reader *r, int depth);

/* The elements or members behind the opening bracket, up to and with the closing one. */
static bool read_children(struct reader *r, struct json *value, int depth) {
    char close = value->kind == JSON_OBJECT ? '}' : ']';
    struct json **last = &value->child;
    skip_space(r);
    if (*r->at == close) {
        r->at++;
        return true;
    }
    while (true) {
        char *name = NULL;
        if (value->kind == JSON_OBJECT) {
            skip_space(r);
            if ((name = read_string(r)) == NULL) {
                return false;
            }
            skip_space(r);
            if (!take(r, ":")) {
                free(name);
                return wrong(r, "no colon");
            }
        }
        struct json *child = read_value(r, depth + 1);
        if (child == NULL) {
            free(name);
            return false;
        }
        child->name = name;
        *last = child;
        last = &child->next;
        value->count++;
        skip_space(r);
        if (*r->at == close) {
            r->at++;
            return true;
        }
        if (!take(r, ",")) {
            return wrong(r, "neither a comma nor the end of a list");
        }
    }
}

static struct json *read_value(struct reader *r, int depth) {
    struct json *value = made(1, sizeof *value);
    bool good = true;
    skip_space(r);
    if (depth > DEEPEST) {
        good = wrong(r, "too many levels");
    } else if (*r->at == '{' || *r->at == '[') {
        value->kind = *r->at++ == '{' ? JSON_OBJECT : JSON_ARRAY;
        good = read_children(r, value, depth);
    } else if (*r->at == '"') {
        value->kind = JSON_STRING;
        good = (value->text = read_string(r)) != NULL;
    } else if (take(r, "true")) {
        value->kind = JSON_TRUE;
    } else if (take(r, "false")) {
        value->kind = JSON_FALSE;
    } else if (!take(r, "null")) {
        good = read_number(r, value);
    }
    if (!good) {
        json_free(value);
        return NULL;
    }
    return value;
}

struct json *json_parse(const char *text, size_t length, char *why, size_t room) {
    struct reader r = {text, text, text + length, why, room};
    struct json *value = read_value(&r, 0);
    skip_space(&r);
    if (value != NULL && r.at != r.end) {
        wrong(&r, "more than one value");
        json_free(value);
        return NULL;
    }
    return value;
}

void json_free(struct json *value) {
    while (value != NULL) {
        struct json *next = value->next;
        json_free(value->child);
        free(value->text);
        free(value->name);
        free(value);
        value = next;
    }
}

const struct json *json_member(const struct json *object, const char *name) {
    const struct json *found = NULL;
    if (object == NULL || object->kind != JSON_OBJECT) {
        return NULL;
    }
    for (const struct json *child = object->child; child != NULL; child = child->next) {
        if (strcmp(child->name, name) == 0) {
            found = child;
        }
    }
    return found;
}
