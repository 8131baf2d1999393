#include "tok/template/run.h"

#include <stdarg.h>
#include <stdio.h>

void trun_error(struct trun *r, const char *fmt, ...) {
    char what[300];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    if (r->a->bad)
        trun_memory(r);
    else
        err_set(r->e, ERR_MODEL, "%s, line %u: %s", r->ast->name, r->line, what);
}

int trun_undefined(struct trun *r, const struct tval *v) {
    int n = v->undef.n < 100 ? (int)v->undef.n : 100;
    if (!v->undef.name)
        return trun_fail(r, "an undefined value is used");
    if (v->undef.of)
        return trun_fail(r, "a %s has no '%.*s', and the template makes use of it", v->undef.of, n, v->undef.name);
    return trun_fail(r, "'%.*s' is undefined", n, v->undef.name);
}

int trun_memory(struct trun *r) {
    err_set(r->e, ERR_MEMORY, "%s, line %u: the rendering needs too much memory, or its text is too long", r->ast->name,
            r->line);
    return -1;
}

int trun_spend(struct trun *r, size_t n) {
    if (n > TRUN_MAX_STEPS - r->steps) {
        r->steps = TRUN_MAX_STEPS;
        return trun_fail(r, "the template does not come to an end: more than %d steps", TRUN_MAX_STEPS);
    }
    r->steps += n;
    return 0;
}

int trun_spend_bytes(struct trun *r, size_t n) {
    return n < 64 ? 0 : trun_spend(r, n / 64);
}

struct tsink trun_sink(struct trun *r) {
    return (struct tsink){.a = r->a, .max = TRUN_MAX_OUTPUT};
}

int trun_text(struct trun *r, const struct tsink *k, struct tstr *out) {
    if (!tsink_ok(k))
        return trun_memory(r);
    *out = tsink_str(k);
    return trun_spend_bytes(r, k->n);
}

struct tval *trun_box(struct trun *r, const struct tval *v) {
    struct tval *box = tarena_alloc(r->a, sizeof *box);
    if (box)
        *box = *v;
    else
        trun_memory(r);
    return box;
}

int trun_enter(struct trun *r) {
    if (r->nest >= TRUN_MAX_NEST)
        return trun_fail(r, "values are nested deeper than %d", TRUN_MAX_NEST);
    r->nest++;
    return 0;
}

void trun_leave(struct trun *r) {
    r->nest--;
}
