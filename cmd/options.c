#include "cmd/options.h"

#include "cmd/suggest.h"
#include "core/base/wipe.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *value_of(const struct opt *o, void *base) {
    return (char *)base + o->offset;
}

void opt_env_name(const struct opt *o, char *out, size_t cap) {
    snprintf(out, cap, "SPLITINF_%s", o->name);
    for (char *p = out; *p; p++)
        *p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
}

void opt_allowed(const struct opt *o, char *out, size_t cap) {
    size_t n = 0;
    bool limits = o->min != 0 || o->max != 0;
    out[0] = '\0';
    switch (o->type) {
    case OPT_FLAG:
        snprintf(out, cap, "1 or 0, yes or no, true or false");
        break;
    case OPT_INT:
    case OPT_FLOAT:
        if (limits)
            snprintf(out, cap, "%.10g to %.10g", o->min, o->max);
        else
            snprintf(out, cap, o->type == OPT_INT ? "a whole number" : "a number");
        break;
    case OPT_U64:
        snprintf(out, cap, "0 to %llu", (unsigned long long)UINT64_MAX);
        break;
    case OPT_BYTES:
        snprintf(out, cap, "bytes, or a number with K, M, G or T such as 512M");
        break;
    case OPT_CHOICE:
        n = (size_t)snprintf(out, cap, "one of");
        for (int i = 0; o->choices[i] && n < cap; i++)
            n += (size_t)snprintf(out + n, cap - n, "%s %s", i ? "," : "", o->choices[i]);
        break;
    case OPT_STRING:
    case OPT_STRINGS:
        snprintf(out, cap, "any text");
        break;
    }
}

static int bad_value(const struct opt *o, const char *text, const char *label, const char *what, struct err *e) {
    char allowed[200];
    opt_allowed(o, allowed, sizeof allowed);
    return err_set(e, ERR_USAGE, "%s: '%.100s' %s (allowed: %s)", label, text, what, allowed);
}

static bool in_range(const struct opt *o, double v) {
    return (o->min == 0 && o->max == 0) || (v >= o->min && v <= o->max);
}

/* Digits only: strtol would also take leading white space and let "-1" wrap to a huge unsigned number. */
static bool parse_u64(const char *text, const char **end, uint64_t *v) {
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    if (!(hex ? isxdigit((unsigned char)text[2]) : isdigit((unsigned char)text[0])))
        return false;
    char *stop;
    errno = 0;
    *v = strtoull(text, &stop, hex ? 16 : 10);
    *end = stop;
    return errno == 0;
}

static int set_int(const struct opt *o, void *base, const char *text, const char *label, struct err *e) {
    const char *end;
    uint64_t u;
    bool minus = text[0] == '-';
    if (!parse_u64(text + minus, &end, &u) || *end != '\0')
        return bad_value(o, text, label, "is not a whole number", e);
    if (u > INT_MAX || !in_range(o, minus ? -(double)u : (double)u))
        return bad_value(o, text, label, "is out of range", e);
    *(int *)value_of(o, base) = minus ? -(int)u : (int)u;
    return 0;
}

static int set_float(const struct opt *o, void *base, const char *text, const char *label, struct err *e) {
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]))
        return bad_value(o, text, label, "is not a number", e);
    if (!isfinite(v) || !in_range(o, v))
        return bad_value(o, text, label, "is out of range", e);
    *(double *)value_of(o, base) = v;
    return 0;
}

static int set_bytes(const struct opt *o, void *base, const char *text, const char *label, struct err *e) {
    static const char units[] = "KMGT";
    const char *end;
    uint64_t v;
    if (!parse_u64(text, &end, &v))
        return bad_value(o, text, label, "is not a size", e);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        int shift = 10 * (int)(unit - units + 1);
        if (v > UINT64_MAX >> shift)
            return bad_value(o, text, label, "is out of range", e);
        v <<= shift;
        end++;
        if (strcmp(end, "iB") == 0)
            end += 2;
        else if (*end == 'B' || *end == 'b')
            end++;
    }
    if (*end != '\0')
        return bad_value(o, text, label, "is not a size", e);
    if (!in_range(o, (double)v))
        return bad_value(o, text, label, "is out of range", e);
    *(uint64_t *)value_of(o, base) = v;
    return 0;
}

static int set_flag(const struct opt *o, void *base, const char *text, const char *label, struct err *e) {
    static const char *const words[] = {"0", "no", "false", "off", "1", "yes", "true", "on"};
    for (int i = 0; i < 8; i++) {
        if (strcmp(text, words[i]) == 0) {
            *(bool *)value_of(o, base) = i >= 4;
            return 0;
        }
    }
    return bad_value(o, text, label, "is neither yes nor no", e);
}

static int set_choice(const struct opt *o, void *base, const char *text, const char *label, struct err *e) {
    for (int i = 0; o->choices[i]; i++) {
        if (strcmp(text, o->choices[i]) == 0) {
            *(int *)value_of(o, base) = i;
            return 0;
        }
    }
    return bad_value(o, text, label, "is not known", e);
}

static int add_string(struct strings *s, const char *text, size_t n, struct err *e) {
    char **p = realloc(s->p, ((size_t)s->n + 1) * sizeof *p);
    if (!p)
        return err_set(e, ERR_MEMORY, "out of memory");
    s->p = p;
    p[s->n] = strndup(text, n);
    if (!p[s->n])
        return err_set(e, ERR_MEMORY, "out of memory");
    s->n++;
    return 0;
}

int opt_set(const struct opt *o, void *base, const char *text, const char *label, struct err *e) {
    uint64_t u;
    const char *end;
    switch (o->type) {
    case OPT_FLAG:
        return set_flag(o, base, text, label, e);
    case OPT_INT:
        return set_int(o, base, text, label, e);
    case OPT_U64:
        if (!parse_u64(text, &end, &u) || *end != '\0')
            return bad_value(o, text, label, "is not a whole number in range", e);
        *(uint64_t *)value_of(o, base) = u;
        return 0;
    case OPT_FLOAT:
        return set_float(o, base, text, label, e);
    case OPT_BYTES:
        return set_bytes(o, base, text, label, e);
    case OPT_CHOICE:
        return set_choice(o, base, text, label, e);
    case OPT_STRING:
        *(const char **)value_of(o, base) = text;
        return 0;
    case OPT_STRINGS:
        return add_string(value_of(o, base), text, strlen(text), e);
    }
    return err_set(e, ERR_USAGE, "%s: option of no known type", label);
}

/* The i-th option of a table, counted over its groups, and its group; NULL behind the last. */
static const struct opt *opt_at(const struct opt_table *t, int i, const struct opt_group **g) {
    for (int k = 0; k < t->n_groups; k++)
        for (const struct opt *o = t->groups[k].opts; o->name; o++)
            if (i-- == 0) {
                *g = &t->groups[k];
                return o;
            }
    return NULL;
}

static int find(const struct opt_table *t, const char *name, size_t n) {
    const struct opt_group *g;
    const struct opt *o;
    for (int i = 0; (o = opt_at(t, i, &g)) != NULL; i++)
        if (strlen(o->name) == n && strncmp(o->name, name, n) == 0)
            return i;
    return -1;
}

const struct opt *opt_find(const struct opt_group *g, const char *name, const char **near) {
    struct suggest s = {0};
    for (const struct opt *o = g->opts; o->name; o++) {
        if (strcmp(o->name, name) == 0)
            return o;
        suggest_offer(&s, name, o->name);
    }
    *near = s.best;
    return NULL;
}

enum opt_source opts_source(const struct opt_table *t, const struct opt_result *r, const char *name) {
    int i = find(t, name, strlen(name));
    return i < 0 ? OPT_FROM_DEFAULT : (enum opt_source)r->from[i];
}

static void *base_of(const struct opt_group *g, void *values) {
    return (char *)values + g->base;
}

void strings_free(struct strings *s) {
    if (!s)
        return;
    for (int i = 0; i < s->n; i++)
        wipe_free(s->p[i], strlen(s->p[i])); /* stop strings and biases say something about the text */
    free(s->p);
    *s = (struct strings){0};
}

void opts_free(const struct opt_table *t, void *values) {
    const struct opt_group *g;
    const struct opt *o;
    for (int i = 0; (o = opt_at(t, i, &g)) != NULL; i++)
        if (o->type == OPT_STRINGS)
            strings_free(value_of(o, base_of(g, values)));
}

static int set_default(const struct opt *o, void *base, struct err *e) {
    if (o->def)
        return opt_set(o, base, o->def, o->name, e);
    switch (o->type) {
    case OPT_FLAG:
        *(bool *)value_of(o, base) = false;
        break;
    case OPT_INT:
    case OPT_CHOICE:
        *(int *)value_of(o, base) = 0;
        break;
    case OPT_U64:
    case OPT_BYTES:
        *(uint64_t *)value_of(o, base) = 0;
        break;
    case OPT_FLOAT:
        *(double *)value_of(o, base) = 0;
        break;
    case OPT_STRING:
        *(const char **)value_of(o, base) = NULL;
        break;
    case OPT_STRINGS:
        *(struct strings *)value_of(o, base) = (struct strings){0};
        break;
    }
    return 0;
}

static int set_env(const struct opt *o, void *base, unsigned char *from, struct err *e) {
    char label[80];
    opt_env_name(o, label, sizeof label);
    const char *text = getenv(label);
    if (!text || !*text)
        return 0;
    *from = OPT_FROM_ENV;
    if (o->type != OPT_STRINGS)
        return opt_set(o, base, text, label, e);
    for (size_t n; *text; text += n + (text[n] == '\n')) {
        n = strcspn(text, "\n");
        if (n && add_string(value_of(o, base), text, n, e) != 0)
            return -1;
    }
    return 0;
}

static int unknown_option(const struct opt_table *t, const char *name, size_t n, struct err *e) {
    char typed[64];
    struct suggest s = {0};
    const struct opt_group *g;
    const struct opt *o;
    snprintf(typed, sizeof typed, "%.*s", (int)(n < 63 ? n : 63), name);
    for (int i = 0; (o = opt_at(t, i, &g)) != NULL; i++)
        suggest_offer(&s, typed, o->name);
    suggest_offer(&s, typed, "help");
    if (s.best)
        return err_set(e, ERR_USAGE, "there is no option --%s; did you mean --%s?", typed, s.best);
    return err_set(e, ERR_USAGE, "there is no option --%s", typed);
}

/* A word that is itself an option of this command is hardly meant as the value of the one before it. */
static bool looks_like_option(const struct opt_table *t, const char *word) {
    return strncmp(word, "--", 2) == 0 && (word[2] == '\0' || find(t, word + 2, strcspn(word + 2, "=")) >= 0);
}

/* argv[*at] is an option word; takes its value too and leaves *at on the last word taken. */
static int take_option(const struct opt_table *t, int argc, char **argv, int *at, void *values, struct opt_result *r,
                       struct err *e) {
    const char *name = argv[*at] + 2, *value = strchr(name, '=');
    size_t n = value ? (size_t)(value++ - name) : strlen(name);
    bool off = false;
    int i = find(t, name, n);
    const struct opt_group *g = NULL;
    const struct opt *o = i < 0 ? NULL : opt_at(t, i, &g);
    if (!o && n > 3 && strncmp(name, "no-", 3) == 0) {
        i = find(t, name + 3, n - 3);
        o = i < 0 ? NULL : opt_at(t, i, &g);
        off = o && o->type == OPT_FLAG;
        if (!off)
            o = NULL;
    }
    if (!o)
        return unknown_option(t, name, n, e);

    char label[80], allowed[200];
    snprintf(label, sizeof label, "--%s%s", off ? "no-" : "", o->name);
    void *base = base_of(g, values);
    if (o->type == OPT_FLAG) {
        if (value)
            return err_set(e, ERR_USAGE, "%s takes no value, but '%.100s' was given", label, value);
        *(bool *)value_of(o, base) = !off;
        r->from[i] = OPT_FROM_LINE;
        return 0;
    }
    if (!value) {
        opt_allowed(o, allowed, sizeof allowed);
        if (*at + 1 >= argc)
            return err_set(e, ERR_USAGE, "%s needs a value: %s %s (allowed: %s)", label, label, o->arg, allowed);
        if (looks_like_option(t, argv[*at + 1]))
            return err_set(e, ERR_USAGE,
                           "%s needs a value, but the option %.40s follows; write %s=%.40s if that is the value", label,
                           argv[*at + 1], label, argv[*at + 1]);
        value = argv[++*at];
    }
    if (o->type == OPT_STRINGS && r->from[i] == OPT_FROM_ENV)
        strings_free(value_of(o, base)); /* the line replaces the environment, it does not add to it */
    r->from[i] = OPT_FROM_LINE;
    return opt_set(o, base, value, label, e);
}

/* Whether word is an option whose value is the next word. */
static bool takes_next(const struct opt_table *t, const char *word) {
    const struct opt_group *g;
    const struct opt *o;
    for (int i = 0; strncmp(word, "--", 2) == 0 && (o = opt_at(t, i, &g)) != NULL; i++)
        if (strcmp(word + 2, o->name) == 0)
            return o->type != OPT_FLAG;
    return false;
}

int opts_parse(const struct opt_table *t, int argc, char **argv, void *values, struct opt_result *r, struct err *e) {
    const struct opt_group *g;
    const struct opt *o;
    *r = (struct opt_result){0};
    for (int i = 0; (o = opt_at(t, i, &g)) != NULL; i++)
        if (set_default(o, base_of(g, values), e) != 0)
            return -1;
    /* Help is given whatever else is wrong with the line or the environment; but -h may also be somebody's text. */
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || (strcmp(argv[i], "-h") == 0 && !(i > 0 && takes_next(t, argv[i - 1]))))
            r->help = true;
    if (r->help)
        return 0;
    for (int i = 0; (o = opt_at(t, i, &g)) != NULL; i++)
        if (set_env(o, base_of(g, values), &r->from[i], e) != 0)
            return -1;
    for (int i = 0; i < argc; i++) {
        const char *stray = argv[i];
        if (strcmp(argv[i], "--") == 0) {
            if (i + 1 >= argc)
                return 0;
            stray = argv[i + 1];
        } else if (argv[i][0] == '-' && argv[i][1] == '-') {
            if (take_option(t, argc, argv, &i, values, r, e) != 0)
                return -1;
            continue;
        } else if (argv[i][0] == '-' && argv[i][1] != '\0') {
            return err_set(e, ERR_USAGE, "there is no option %.40s; options are written out, such as --%s", argv[i],
                           t->groups[0].opts[0].name);
        }
        return err_set(e, ERR_USAGE, "'%.60s' is not an option; %s", stray, t->no_args);
    }
    return 0;
}
