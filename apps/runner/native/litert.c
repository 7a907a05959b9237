#include "litert.h"

#include <dlfcn.h>
#include <elf.h>

#include "alloc.h"

#if defined(__aarch64__)
enum { OUR_MACHINE = EM_AARCH64 };
#elif defined(__x86_64__)
enum { OUR_MACHINE = EM_X86_64 };
#else
#error "the runner is for aarch64 and x86_64"
#endif

bool litert_good(int status, const char *name, const char *kind, struct failure *failure) {
    return status == 0 || fail(failure, kind, "%s answered %d", name, status);
}

/* dlsym gives a pointer to data; POSIX guarantees that its bytes are those of a pointer to a function. */
static bool find(void *library, const char *name, void *place, size_t size, char *why, size_t room) {
    void *found = dlsym(library, name);
    if (found == NULL) {
        snprintf(why, room, "it has no %s", name);
        return false;
    }
    memcpy(place, &found, size);
    return true;
}

/* Whether a file is a library for another kind of machine; glibc then says only that there is no such file. */
static bool is_foreign(const char *path, int *machine) {
    Elf64_Ehdr head;
    FILE *file = fopen(path, "rb");
    bool good = file != NULL && fread(&head, sizeof head, 1, file) == 1 && memcmp(head.e_ident, ELFMAG, SELFMAG) == 0;
    if (file != NULL) {
        fclose(file);
    }
    *machine = good ? head.e_machine : 0;
    return good && *machine != OUR_MACHINE;
}

bool litert_open(struct litert *api, const char *path, char *why, size_t room) {
    char beside[4096]; /* without a slash dlopen would look in the system's folders */
    memset(api, 0, sizeof *api);
    if (strchr(path, '/') == NULL && (size_t)snprintf(beside, sizeof beside, "./%s", path) < sizeof beside) {
        path = beside;
    }
    api->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (api->library == NULL) {
        int machine = 0;
        const char *said = dlerror();
        snprintf(why, room, "%s", said ? said : "no reason given");
        if (is_foreign(path, &machine)) {
            snprintf(why, room, "it is for ELF machine %d, this is %d (%s)", machine, OUR_MACHINE,
                     said ? said : "no reason given");
        }
        return false;
    }
#define X(name, parameters) \
    if (!find(api->library, "LiteRt" #name, &api->name, sizeof api->name, why, room)) return false;
    LITERT_CALLS(X)
#undef X
#define X(name) \
    if (!find(api->library, "LiteRt" #name, &api->name, sizeof api->name, why, room)) return false;
    LITERT_ENDS(X)
#undef X
    int status = api->CreateEnvironment(0, NULL, &api->environment);
    if (status != 0) {
        snprintf(why, room, "LiteRtCreateEnvironment answered %d", status);
    }
    return status == 0;
}
