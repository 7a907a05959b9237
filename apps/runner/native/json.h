/* A strict reader of JSON (RFC 8259) into a tree. */
#ifndef EDGEPRUNE_JSON_H
#define EDGEPRUNE_JSON_H

#include <stddef.h>

enum json_kind { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_kind kind;
    double number;       /* of a number */
    char *text;          /* of a string: bytes without a zero among them */
    char *name;          /* of a member of an object */
    struct json *child;  /* the first element or member */
    struct json *next;   /* the next one beside this */
    size_t count;        /* of elements or members */
};

/* Reads one value that fills the whole text, which ends with a zero at text[length].
   NULL on an error, which `why` then names with its place. */
struct json *json_parse(const char *text, size_t length, char *why, size_t room);

void json_free(struct json *value);

/* The last member of that name, as Python keeps; NULL if there is none or `object` is no object. */
const struct json *json_member(const struct json *object, const char *name);

#endif
