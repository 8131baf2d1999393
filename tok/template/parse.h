/* tok/template/parse.h - the parser, and what its two halves (statements, expressions) share. */
#ifndef TOK_TEMPLATE_PARSE_H
#define TOK_TEMPLATE_PARSE_H

#include "tok/template/ast.h"
#include "tok/template/lex.h"

/* Bounds of a template. */
enum {
    TAST_MAX_SOURCE = 1 << 20,
    TAST_MAX_DEPTH = 150, /* nested brackets and blocks */
    TAST_MAX_CHAIN = 500, /* a + b + c ... */
    TAST_MAX_SYMBOLS = 1000,
};
#define TAST_MAX_MEMORY ((size_t)128 << 20)

/* ast is zeroed; tarena_free(&ast->a) releases it, also after a failure. */
int tparse(struct tast *ast, const char *src, size_t n, const char *name, struct err *e);

struct tparser {
    struct tast *ast;
    struct err *e;
    const struct ttoken *tok; /* the current token; the array ends with TT_EOF */
    int depth;
    int in_macro, in_loop; /* loops are counted within the innermost macro */
};

void tparse_error(struct tparser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define tparse_fail(...) (tparse_error(__VA_ARGS__), -1)
/* "expected WHAT, got ...". */
int tparse_expected(struct tparser *p, const char *what);
struct tnode *tparse_node(struct tparser *p, enum tnode_kind kind, uint32_t line);
int tparse_enter(struct tparser *p);
void tparse_leave(struct tparser *p);
int tparse_symbol(struct tparser *p, struct tstr name, uint32_t *sym);

bool tparse_at_op(const struct tparser *p, char op);
bool tparse_at_name(const struct tparser *p, const char *name);
bool tparse_skip_op(struct tparser *p, char op);
bool tparse_skip_name(struct tparser *p, const char *name);
int tparse_expect_op(struct tparser *p, char op);

/* A growing list of nodes. */
struct tnodes {
    struct tnode **v;
    size_t n, cap;
};
int tparse_push(struct tparser *p, struct tnodes *l, struct tnode *n);

/* Expressions; NULL with an error. end_name: a name that ends a tuple, such as "in", or NULL. */
struct tnode *tparse_expr(struct tparser *p);
struct tnode *tparse_expr_no_cond(struct tparser *p);
struct tnode *tparse_tuple(struct tparser *p, bool with_cond);
/* A target of set, for or with. */
struct tnode *tparse_target(struct tparser *p, bool with_namespace);
/* Filters "| a | b(c)" upon of, which may be NULL; start_inline: the first stands without its bar. */
struct tnode *tparse_filters(struct tparser *p, struct tnode *of, bool start_inline);

/* After parsing: fills in tbody.blank everywhere (scope.c). */
int tparse_scopes(struct tparser *p);

#endif
