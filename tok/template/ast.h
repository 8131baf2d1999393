/* tok/template/ast.h - a parsed template: immutable, in one arena, shared by any number of renderings at once. */
#ifndef TOK_TEMPLATE_AST_H
#define TOK_TEMPLATE_AST_H

#include "core/base/err.h"
#include "tok/template/ops.h"

enum tnode_kind {
    /* expressions */
    TN_CONST,
    TN_NAME,
    TN_LIST,
    TN_TUPLE,
    TN_DICT, /* list: key, value, key, value ... */
    TN_ATTR,
    TN_ITEM,
    TN_SLICE,
    TN_CALL,
    TN_FILTER,
    TN_TEST,
    TN_NOT,
    TN_NEG,
    TN_POS,
    TN_AND,
    TN_OR,
    TN_ADD,
    TN_ARITH,
    TN_CONCAT, /* list */
    TN_COMPARE,
    TN_COND,
    TN_NS_ATTR, /* only as a target of set */
    /* statements */
    TN_DATA,
    TN_OUTPUT,
    TN_IF,
    TN_FOR,
    TN_SET,
    TN_SET_BLOCK,
    TN_MACRO,
    TN_WITH,
    TN_FILTER_BLOCK,
    TN_GENERATION,
    TN_BREAK,
    TN_CONTINUE,
};

struct tbody {
    struct tnode **v;
    size_t n;
    uint32_t *blank; /* of a body with a scope of its own: the names that begin undefined in it */
    size_t n_blank;
};
struct tnode_kw {
    struct tstr name;
    struct tnode *v;
};
struct tnode_args {
    struct tnode **pos;
    size_t n_pos;
    struct tnode_kw *kw;
    size_t n_kw;
};
struct tparam {
    uint32_t sym;
    struct tstr name;
    struct tnode *preset; /* or NULL */
};
struct tbranch {
    struct tnode *test; /* NULL: else */
    struct tbody body;
};
struct tcompare_op {
    enum tcompare op;
    struct tnode *with;
};

struct tnode {
    enum tnode_kind kind;
    uint32_t line;
    union {
        struct tval value; /* CONST; DATA: a string */
        uint32_t sym;      /* NAME */
        struct tbody list; /* LIST, TUPLE, DICT, CONCAT; items are expressions */
        struct {
            struct tnode *of;
            struct tstr name;
            uint32_t sym; /* NS_ATTR: the namespace's variable, of is NULL */
        } attr;
        struct {
            struct tnode *of, *key;
        } item;
        struct {
            struct tnode *of, *from, *to, *step; /* bounds may be NULL */
        } slice;
        struct {
            struct tnode *of; /* what is called, filtered or tested; NULL: a block's text */
            const struct tbuiltin *f;
            struct tnode_args *args;
        } call; /* CALL, FILTER, TEST */
        struct {
            struct tnode *a, *b;
            char op; /* ARITH: '-' '*' '/' '%', 'f' for //, 'p' for ** */
        } bin;       /* AND, OR, ADD, ARITH; NOT, NEG, POS, OUTPUT: a only */
        struct {
            struct tnode *first;
            struct tcompare_op *v;
            size_t n;
        } compare;
        struct {
            struct tnode *test, *yes, *no; /* no may be NULL */
        } cond;
        struct {
            struct tbranch *v;
            size_t n;
        } branches; /* IF */
        struct {
            struct tnode *target, *iter, *where; /* where may be NULL */
            struct tbody body, empty;
        } loop;
        struct {
            struct tnode *target;
            struct tnode *value; /* SET: expression; SET_BLOCK, FILTER_BLOCK: chain of filters or NULL */
            struct tbody body;   /* SET_BLOCK, FILTER_BLOCK, GENERATION */
        } set;
        struct {
            uint32_t sym;
            struct tstr name;
            struct tparam *param;
            size_t n_params;
            struct tbody body;
        } macro;
        struct {
            struct tnode **target, **value;
            size_t n;
            struct tbody body;
        } with;
    };
};

enum { TMACRO_MAX_PARAMS = 64 };
struct tast {
    struct tarena a;
    const char *name; /* for messages */
    struct tbody body;
    struct tstr *sym; /* names of variables */
    size_t n_syms, cap_syms;
    uint32_t sym_loop;
};

#endif
