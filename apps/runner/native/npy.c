#include "npy.h"

#include <errno.h>
#include <inttypes.h>

#include "alloc.h"
#include "text.h"

static const char MAGIC[] = "\x93NUMPY";
enum { MAGIC_BYTES = 6, MOST_HEADER = 1 << 20, ALIGNMENT = 64 };

static bool unreadable(struct failure *failure, const char *why) {
    return fail(failure, "input", "the inputs are no .npy file that can be read: %s", why);
}

/* What follows `'key':` in the header's dictionary. */
static const char *value_of(const char *header, const char *key) {
    char quoted[32];
    snprintf(quoted, sizeof quoted, "'%s'", key);
    const char *at = strstr(header, quoted);
    if (at == NULL) {
        return NULL;
    }
    at += strlen(quoted);
    at += strspn(at, " ");
    return *at == ':' ? at + 1 + strspn(at + 1, " ") : NULL;
}

static bool parse_shape(struct npy *npy, const char *at) {
    if (at == NULL || *at != '(') {
        return false;
    }
    at++;
    for (npy->rank = 0; npy->rank < NPY_DIMENSIONS;) {
        at += strspn(at, " ,");
        if (*at == ')') {
            return true;
        }
        char *end;
        errno = 0;
        npy->shape[npy->rank] = strtoll(at, &end, 10);
        if (end == at || errno || npy->shape[npy->rank] < 0) {
            return false;
        }
        npy->rank++;
        at = end + (*end == 'L');
    }
    return false;
}

static bool parse_header(struct npy *npy, const char *header, struct failure *failure) {
    const char *dtype = value_of(header, "descr"), *order = value_of(header, "fortran_order");
    if (dtype == NULL || (*dtype != '\'' && *dtype != '"')) {
        return unreadable(failure, "its elements are not of one simple type");
    }
    size_t length = strcspn(dtype + 1, "'\"");
    if (length >= sizeof npy->dtype) {
        return unreadable(failure, "its elements are not of one simple type");
    }
    memcpy(npy->dtype, dtype + 1, length);
    npy->dtype[length] = '\0';
    const struct element *element = element_of_npy(npy->dtype);
    if (element != NULL) {
        strcpy(npy->dtype, element->name);
    }
    if (!parse_shape(npy, value_of(header, "shape"))) {
        return unreadable(failure, "it has no shape");
    }
    if (order == NULL || (strncmp(order, "False", 5) != 0 && npy->rank > 1)) {
        return unreadable(failure, "it is not in C order");
    }
    return true;
}

bool npy_open(struct npy *npy, const char *path, struct failure *failure) {
    unsigned char head[MAGIC_BYTES + 2 + 4];
    memset(npy, 0, sizeof *npy);
    npy->file = fopen(path, "rb");
    if (npy->file == NULL) {
        return fail(failure, "input", "cannot open the inputs %s: %s", path, strerror(errno));
    }
    if (fread(head, 1, 10, npy->file) != 10 || memcmp(head, MAGIC, MAGIC_BYTES) != 0 || head[6] < 1 || head[6] > 3) {
        return unreadable(failure, "no header of version 1, 2 or 3");
    }
    size_t length = head[8] | (size_t)head[9] << 8; /* two bytes in version 1, four later on */
    if (head[6] > 1) {
        if (fread(head + 10, 1, 2, npy->file) != 2) {
            return unreadable(failure, "it ends in its header");
        }
        length |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
    }
    if (length > MOST_HEADER) {
        return unreadable(failure, "its header is too long");
    }
    char *header = made(length + 1, 1);
    bool good = fread(header, 1, length, npy->file) == length ? parse_header(npy, header, failure)
                                                              : unreadable(failure, "it ends in its header");
    free(header);
    return good;
}

bool npy_read(struct npy *npy, void *row, size_t bytes, struct failure *failure) {
    if (fread(row, 1, bytes, npy->file) != bytes) {
        return unreadable(failure, "it ends before its last row");
    }
    return true;
}

bool npy_create(struct npy *npy, const char *path, int64_t rows, const struct spec *row, struct failure *failure) {
    struct text header = {0};
    memset(npy, 0, sizeof *npy);
    npy->file = fopen(path, "wb");
    if (npy->file == NULL) {
        return fail(failure, "run", "cannot write the outputs %s: %s", path, strerror(errno));
    }
    text_add(&header, "{'descr': '%s', 'fortran_order': False, 'shape': (%" PRId64 ",", row->element->npy, rows);
    for (int i = 0; i < row->rank; i++) {
        text_add(&header, " %" PRId64 "%s", row->shape[i], i + 1 < row->rank ? "," : "");
    }
    text_add(&header, "), }");
    size_t used = MAGIC_BYTES + 4 + header.length + 1; /* with the last line end */
    text_add(&header, "%*s\n", (int)((ALIGNMENT - used % ALIGNMENT) % ALIGNMENT), "");
    unsigned char head[] = {1, 0, (unsigned char)(header.length & 0xFF), (unsigned char)(header.length >> 8)};
    bool good = npy_write(npy, MAGIC, MAGIC_BYTES, failure) && npy_write(npy, head, sizeof head, failure) &&
                npy_write(npy, header.data, header.length, failure);
    free(header.data);
    return good;
}

bool npy_write(struct npy *npy, const void *row, size_t bytes, struct failure *failure) {
    if (fwrite(row, 1, bytes, npy->file) != bytes) {
        return fail(failure, "run", "cannot write the outputs: %s", strerror(errno));
    }
    return true;
}

bool npy_close(struct npy *npy, struct failure *failure) {
    FILE *file = npy->file;
    npy->file = NULL;
    if (file != NULL && fclose(file) != 0) {
        return fail(failure, "run", "cannot write the outputs: %s", strerror(errno));
    }
    return true;
}
