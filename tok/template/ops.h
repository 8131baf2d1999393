/* tok/template/ops.h - what Python does with the values of value.h: str() and repr(), attributes, items, slices,
 * arithmetic, JSON in and out, iteration. */
#ifndef TOK_TEMPLATE_OPS_H
#define TOK_TEMPLATE_OPS_H

#include "tok/template/value.h"

struct yyjson_val;

/* str() and repr() onto a sink. */
int tval_print(struct trun *r, struct tsink *k, const struct tval *v);
int tval_repr(struct trun *r, struct tsink *k, const struct tval *v);
/* str() as a string. */
int tval_to_str(struct trun *r, const struct tval *v, struct tstr *out);
/* Escapes & < > ' " unless that has been done: what the escape filter gives, marked safe. */
int tval_escape(struct trun *r, struct tstr s, struct tstr *out);
void tval_print_double(struct tsink *k, double f);
/* Python's float() and int() of text: 0, or -1 when the text is no such number. No error is set. */
int tval_parse_double(struct tstr s, double *out);
int tval_parse_int(struct tstr s, int64_t *out);

/* Access and arithmetic; each needs a value, so Undefined is an error. */
int tval_attr(struct trun *r, const struct tval *obj, struct tstr name, struct tval *out);
int tval_item(struct trun *r, const struct tval *obj, const struct tval *key, struct tval *out);
/* Absent bounds are NULL. */
int tval_slice(struct trun *r, const struct tval *obj, const struct tval *from, const struct tval *to,
               const struct tval *step, struct tval *out);
int tval_add(struct trun *r, const struct tval *a, const struct tval *b, struct tval *out);
int tval_arith(struct trun *r, char op, const struct tval *a, const struct tval *b, struct tval *out); /* - * / f % p */
int tval_negate(struct trun *r, const struct tval *a, struct tval *out);
/* The attribute path of map(attribute="a.b"): item after item. */
int tval_path(struct trun *r, const struct tval *obj, const struct tval *path, struct tval *out);

/* json.dumps as transformers' tojson filter calls it; NULL for what was not given. */
struct tjson_style {
    const struct tval *indent, *separators;
    bool ensure_ascii, sort_keys;
};
int tjson_write(struct trun *r, struct tsink *k, const struct tval *v, const struct tjson_style *style);
/* A value from parsed JSON; its strings are from user data. */
int tjson_read(struct trun *r, struct yyjson_val *j, struct tval *out);

/* Iteration. titer_of: an error when v cannot be iterated. titer_next: 1 and *out, 0 at the end, -1. */
int titer_of(struct trun *r, const struct tval *v, struct titer **out);
int titer_next(struct trun *r, struct titer *it, struct tval *out);
int titer_list(struct trun *r, const struct tval *v, struct tval *out); /* list(v) */

#endif
