/* tok/template/lex.h - template source to tokens, with Jinja's white-space rules (trim_blocks and lstrip_blocks on, one
 * newline at the end dropped, newlines normalised). Pure; source is untrusted. */
#ifndef TOK_TEMPLATE_LEX_H
#define TOK_TEMPLATE_LEX_H

#include "core/base/err.h"
#include "tok/template/str.h"

enum tlex_type {
    TT_EOF,
    TT_DATA,      /* s: text between tags */
    TT_VAR_BEGIN, /* {{ */
    TT_VAR_END,
    TT_BLOCK_BEGIN, /* {% */
    TT_BLOCK_END,
    TT_NAME,    /* s */
    TT_STRING,  /* s: with its escapes resolved */
    TT_INTEGER, /* i */
    TT_FLOAT,   /* f */
    TT_OP,      /* op: the character; 'p' **, 'f' //, 'e' ==, 'n' !=, 'l' <=, 'g' >= */
};

struct ttoken {
    enum tlex_type type;
    uint32_t line;
    char op;
    struct tstr s;
    int64_t i;
    double f;
};

/* *out: tokens in a, the last one TT_EOF. name: the template's, for messages. */
int tlex(struct tarena *a, const char *src, size_t n, const char *name, struct ttoken **out, size_t *n_out,
         struct err *e);
/* How a token reads, for messages. */
void tlex_describe(const struct ttoken *t, char *out, size_t cap);

#endif
