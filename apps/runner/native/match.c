#include "match.h"

#include "alloc.h"
#include "text.h"

static const char *name_of(const struct side *side, size_t place) {
    return side->tensors[side->places[place]].name;
}

static bool has_names(const struct side *side) {
    for (size_t i = 0; i < side->graph_count; i++) {
        if (*name_of(side, i) != '\0') {
            return true;
        }
    }
    return false;
}

static bool has_none(const struct side *side, const char *kind, const char *name, struct failure *failure) {
    struct text known = {0};
    text_add(&known, "%s", "");
    for (size_t i = 0; i < side->graph_count; i++) {
        text_add(&known, "%s%s", i ? ", " : "", name_of(side, i));
    }
    fail(failure, "input", "the file has no %s %s; it has %s", kind, name, known.data);
    free(known.data);
    return false;
}

/* The first place of that name that is not taken; the number of places if there is none. */
static size_t place_named(const struct side *side, const char *name, const struct matches *taken) {
    for (size_t i = 0; i < side->graph_count; i++) {
        bool is_taken = false;
        for (size_t k = 0; k < taken->count; k++) {
            is_taken = is_taken || taken->places[k] == i;
        }
        if (!is_taken && strcmp(name_of(side, i), name) == 0) {
            return i;
        }
    }
    return side->graph_count;
}

static bool match_names(const struct side *side, const char *kind, const struct words *names, struct matches *matches,
                        struct failure *failure) {
    for (size_t i = 0; i < names->count; i++) {
        size_t place = place_named(side, names->items[i], matches);
        if (place == side->graph_count) {
            return has_none(side, kind, names->items[i], failure);
        }
        matches->places[matches->count++] = place;
    }
    return true;
}

static bool match_in_order(const struct side *side, const char *kind, const struct words *names,
                           struct matches *matches, struct failure *failure) {
    if (names->given && names->count != side->graph_count) {
        return fail(failure, "input", "the file has %zu %ss without names, not %zu", side->graph_count, kind,
                    names->count);
    }
    while (matches->count < side->graph_count) {
        matches->places[matches->count] = matches->count;
        matches->count++;
    }
    return true;
}

static bool match(const struct side *side, const char *kind, const struct words *names, struct matches *matches,
                  struct failure *failure) {
    size_t most = names->count > side->graph_count ? names->count : side->graph_count;
    *matches = (struct matches){.places = made(most, sizeof *matches->places)};
    return (names->given && has_names(side) ? match_names : match_in_order)(side, kind, names, matches, failure);
}

bool match_inputs(const struct model *model, const struct job_case *item, struct matches *matches,
                  struct failure *failure) {
    const struct side *side = &model->inputs;
    if (side->graph_count != item->inputs.count) {
        return fail(failure, "input", "the file takes %zu inputs, and %zu were given", side->graph_count,
                    item->inputs.count);
    }
    if (item->input_names.given && item->input_names.count != side->graph_count) {
        return fail(failure, "input", "%zu inputs were given, and %zu names", side->graph_count,
                    item->input_names.count);
    }
    return match(side, "input", &item->input_names, matches, failure);
}

bool match_outputs(const struct model *model, const struct job_case *item, struct matches *matches,
                   struct failure *failure) {
    if (model->outputs.graph_count == 0) {
        return fail(failure, "load", "the file has no output");
    }
    return match(&model->outputs, "output", &item->output_names, matches, failure);
}
