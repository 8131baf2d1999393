#include "tok/regex.h"

#include "core/base/buf.h"
#include "tok/unicode_delta.h"
#include "tok/utf8.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MAX_PATTERN 65536
/* Steps of one match in n bytes: a linear scan stays far below, exponential backtracking runs into it. */
#define MATCH_LIMIT(n) (100000u + 50u * (uint32_t)(n))

struct regex {
    pcre2_code *code;
};

struct regex_scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* The White_Space property, which both engines mean by \s; PCRE2's own \s has U+180E too. */
#define SPACES                                                                                                         \
    "\\x{09}-\\x{0d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACES                                                                                                     \
    "\\x{00}-\\x{08}\\x{0e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{"   \
    "2027}"                                                                                                            \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

#define NEW_L UNICODE_NEW_LU UNICODE_NEW_LL UNICODE_NEW_LT UNICODE_NEW_LM UNICODE_NEW_LO
#define NEW_M UNICODE_NEW_MN UNICODE_NEW_MC UNICODE_NEW_ME
#define NEW_N UNICODE_NEW_ND UNICODE_NEW_NL UNICODE_NEW_NO

/* What a class must hold beside \p{name} for code points that PCRE2's Unicode version does not know. */
static const struct {
    const char *name, *more;
} categories[] = {
    {"L", NEW_L},           {"Lu", UNICODE_NEW_LU}, {"Ll", UNICODE_NEW_LL}, {"Lt", UNICODE_NEW_LT},
    {"Lm", UNICODE_NEW_LM}, {"Lo", UNICODE_NEW_LO}, {"M", NEW_M},           {"Mn", UNICODE_NEW_MN},
    {"Mc", UNICODE_NEW_MC}, {"Me", UNICODE_NEW_ME}, {"N", NEW_N},           {"Nd", UNICODE_NEW_ND},
    {"Nl", UNICODE_NEW_NL}, {"No", UNICODE_NEW_NO}, {"Pc", UNICODE_NEW_PC},
};

struct translator {
    const char *p;
    size_t n, i;
    enum regex_dialect dialect;
    bool in_class;
    struct wbuf out;
    struct err *e;
};

static int refuse(struct translator *t, const char *what) {
    return err_set(t->e, ERR_MODEL, "the regular expression %.*s uses %s, which is not supported",
                   (int)(t->n < 200 ? t->n : 200), t->p, what);
}

/* A set: as it is inside a class, else as a class of its own. */
static void put_set(struct translator *t, bool negated, const char *a, const char *b) {
    if (!t->in_class)
        wbuf_str(&t->out, negated ? "[^" : "[");
    wbuf_str(&t->out, a);
    wbuf_str(&t->out, b);
    if (!t->in_class)
        wbuf_str(&t->out, "]");
}

/* \p or \P, at t->i behind that letter: {Lu}, {^Lu} or one letter. */
static int put_property(struct translator *t, bool negated) {
    const char *name = t->p + t->i;
    size_t n = 1;
    if (t->i == t->n)
        return refuse(t, "an unfinished \\p");
    if (*name == '{') {
        const char *end = memchr(name, '}', t->n - t->i);
        if (!end)
            return refuse(t, "an unfinished \\p{");
        t->i = (size_t)(end + 1 - t->p);
        name++;
        if (*name == '^') {
            negated = !negated;
            name++;
        }
        n = (size_t)(end - name);
    } else {
        t->i++;
    }
    char buf[80];
    for (size_t k = 0; k < n; k++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_&", name[k]) || name[k] == 0)
            return refuse(t, "a property name with an odd character");
    if (n == 0 || n > 60)
        return refuse(t, "a property without a name");
    snprintf(buf, sizeof buf, "\\%c{%.*s}", negated && t->in_class ? 'P' : 'p', (int)n, name);
    const char *more = "";
    for (size_t k = 0; k < sizeof categories / sizeof categories[0]; k++)
        if (strlen(categories[k].name) == n && memcmp(categories[k].name, name, n) == 0)
            more = categories[k].more;
    /* a negated property inside a class cannot be narrowed there: code points newer than PCRE2 stay in it */
    put_set(t, negated, buf, negated && t->in_class ? "" : more);
    return 0;
}

/* A code point: n_digits hexadecimal digits, or for \x also up to 8 of them in braces. */
static int put_hex(struct translator *t, size_t n_digits) {
    char digits[9] = {0};
    bool braces = n_digits == 2 && t->i < t->n && t->p[t->i] == '{';
    size_t k = 0, max = braces ? 8 : n_digits;
    t->i += braces;
    for (; k < max && t->i < t->n && isxdigit((unsigned char)t->p[t->i]); t->i++)
        digits[k++] = t->p[t->i];
    if (braces ? k == 0 || t->i == t->n || t->p[t->i++] != '}' : k < n_digits)
        return refuse(t, "an unfinished hexadecimal escape");
    if (!braces && n_digits == 2 && strtoul(digits, NULL, 16) >= 0x80)
        return refuse(t, "a raw byte (\\x80 and above)");
    wbuf_fmt(&t->out, "\\x{%s}", digits);
    return 0;
}

static int put_escape(struct translator *t) {
    if (t->i == t->n)
        return refuse(t, "a lone backslash at its end");
    char c = t->p[t->i++], what[] = {'\\', c, 0};
    switch (c) {
    case 's':
        put_set(t, false, SPACES, "");
        return 0;
    case 'S':
        put_set(t, !t->in_class, t->in_class ? NOT_SPACES : SPACES, "");
        return 0;
    case 'd':
        put_set(t, false, "\\p{Nd}", UNICODE_NEW_ND);
        return 0;
    case 'w':
        put_set(t, false, "\\p{L}\\p{M}\\p{N}\\p{Pc}", NEW_L NEW_M NEW_N);
        return 0;
    case 'D':
        put_set(t, true, t->in_class ? "\\P{Nd}" : "\\p{Nd}", t->in_class ? "" : UNICODE_NEW_ND);
        return 0;
    case 'W':
        if (t->in_class)
            return refuse(t, "\\W inside a class");
        put_set(t, true, "\\p{L}\\p{M}\\p{N}\\p{Pc}", NEW_L NEW_M NEW_N);
        return 0;
    case 'p':
    case 'P':
        return put_property(t, c == 'P');
    case 'v':
        wbuf_str(&t->out, "\\x{0b}");
        return 0;
    case 'u':
        return put_hex(t, 4);
    case 'x':
        return put_hex(t, 2);
    case 'b':
    case 'B':
    case 'A':
    case 'z':
    case 'Z':
        if (t->in_class)
            return refuse(t, what);
        break;
    case 'r':
    case 'n':
    case 't':
    case 'f':
    case 'a':
    case 'e':
        break;
    default:
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            return refuse(t, what);
        if ((unsigned char)c >= 0x80) { /* an escaped character beyond ASCII is that character */
            wbuf_u8(&t->out, (uint8_t)c);
            return 0;
        }
    }
    wbuf_put(&t->out, what, 2);
    return 0;
}

static bool follows(const struct translator *t, const char *s) {
    size_t n = strlen(s);
    return t->n - t->i >= n && memcmp(t->p + t->i, s, n) == 0;
}

static int put_group(struct translator *t) {
    static const char *const known[] = {"?:", "?=", "?!", "?<=", "?<!", "?>", "?i:"};
    if (follows(t, "*"))
        return refuse(t, "a (*VERB)");
    if (!follows(t, "?"))
        return 0;
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
        if (follows(t, known[k])) {
            wbuf_str(&t->out, known[k]);
            t->i += strlen(known[k]);
            return 0;
        }
    /* further in, engines differ in how far an option reaches */
    if (follows(t, "?i)") && t->i == 1) {
        wbuf_str(&t->out, "?i");
        t->i += 2;
        return 0;
    }
    return refuse(t, "a (?...) group other than (?: (?= (?! (?<= (?<! (?> and (?i:");
}

static int put_class_char(struct translator *t, char c) {
    if (c == ']') {
        t->in_class = false;
    } else if (c == '[' && !follows(t, ":")) {
        return refuse(t, "a class inside a class");
    } else if (c == '[') {
        const char *end = memmem(t->p + t->i, t->n - t->i, ":]", 2);
        if (!end)
            return refuse(t, "an unescaped [ inside a class");
        size_t n = (size_t)(end + 2 - (t->p + t->i));
        wbuf_str(&t->out, "[");
        wbuf_put(&t->out, t->p + t->i, n);
        t->i += n;
        return 0;
    } else if (c == '&' && follows(t, "&")) {
        return refuse(t, "an intersection of classes (&&)");
    }
    wbuf_u8(&t->out, (uint8_t)c);
    return 0;
}

static int translate(struct translator *t) {
    while (t->i < t->n) {
        char c = t->p[t->i++];
        int rc = 0;
        if (c == 0) {
            wbuf_str(&t->out, "\\x{00}");
        } else if (c == '\\') {
            rc = put_escape(t);
        } else if (t->in_class) {
            rc = put_class_char(t, c);
        } else {
            wbuf_u8(&t->out, (uint8_t)c);
            if (c == '[') {
                t->in_class = true;
                if (follows(t, "^")) {
                    wbuf_u8(&t->out, '^');
                    t->i++;
                }
                if (follows(t, "]"))
                    return refuse(t, "a class that starts with ]");
            } else if (c == '(') {
                rc = put_group(t);
            } else if (c == '{' && follows(t, ",")) {
                rc = refuse(t, "{,n}");
            } else if (c == '}' && follows(t, "+") && t->dialect == REGEX_ONIG) {
                rc = refuse(t, "{n,m}+"); /* repeated here, possessive in PCRE2 */
            }
        }
        if (rc != 0)
            return -1;
    }
    return t->out.bad ? err_set(t->e, ERR_MEMORY, "out of memory for a regular expression") : 0;
}

int regex_compile(struct regex **out, const char *pattern, size_t n, enum regex_dialect dialect, struct err *e) {
    struct translator t = {.p = pattern, .n = n, .dialect = dialect, .e = e};
    struct regex *r = NULL;
    int rc = -1, code;
    PCRE2_SIZE at;
    *out = NULL;
    if (n > MAX_PATTERN)
        return err_set(e, ERR_MODEL, "a regular expression has %zu bytes; at most %d are supported", n, MAX_PATTERN);
    if (translate(&t) != 0)
        goto out;
    r = calloc(1, sizeof *r);
    if (!r) {
        err_set(e, ERR_MEMORY, "out of memory for a regular expression");
        goto out;
    }
    /* Ruby's ^ and $ are those of every line */
    r->code = pcre2_compile((PCRE2_SPTR)wbuf_cstr(&t.out), t.out.n,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C |
                                (dialect == REGEX_ONIG ? PCRE2_MULTILINE : PCRE2_DOLLAR_ENDONLY),
                            &code, &at, NULL);
    if (!r->code) {
        PCRE2_UCHAR msg[160];
        pcre2_get_error_message(code, msg, sizeof msg);
        err_set(e, ERR_MODEL, "the regular expression %.*s is wrong: %s", (int)(n < 200 ? n : 200), pattern,
                (const char *)msg);
        goto out;
    }
    (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* where there is no JIT the interpreter serves */
    *out = r;
    r = NULL;
    rc = 0;
out:
    regex_free(r);
    wbuf_free(&t.out);
    return rc;
}

void regex_free(struct regex *r) {
    if (!r)
        return;
    pcre2_code_free(r->code);
    free(r);
}

struct regex_scratch *regex_scratch_new(struct err *e) {
    struct regex_scratch *s = calloc(1, sizeof *s);
    if (s) {
        s->data = pcre2_match_data_create(1, NULL);
        s->context = pcre2_match_context_create(NULL);
        s->stack = pcre2_jit_stack_create(64 << 10, 64 << 20, NULL);
    }
    if (!s || !s->data || !s->context) {
        regex_scratch_free(s);
        err_set(e, ERR_MEMORY, "out of memory for matching");
        return NULL;
    }
    if (s->stack)
        pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return s;
}

void regex_scratch_free(struct regex_scratch *s) {
    if (!s)
        return;
    pcre2_jit_stack_free(s->stack);
    pcre2_match_context_free(s->context);
    pcre2_match_data_free(s->data);
    free(s);
}

/* The first match at or after from: 1, 0 or -1. */
static int find(struct regex_iter *m, size_t *start, size_t *end, struct err *e) {
    pcre2_set_match_limit(m->s->context, MATCH_LIMIT(m->n < 80000000 ? m->n : 80000000));
    int rc = pcre2_match(m->r->code, m->p, m->n, m->from, PCRE2_NO_UTF_CHECK, m->s->data, m->s->context);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0) {
        PCRE2_UCHAR msg[160];
        pcre2_get_error_message(rc, msg, sizeof msg);
        return err_set(e, ERR_MODEL, "a tokenizer's regular expression failed: %s", (const char *)msg);
    }
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(m->s->data);
    *start = v[0];
    *end = v[1];
    return 1;
}

struct regex_iter regex_iter_of(const struct regex *r, struct regex_scratch *s, const uint8_t *p, size_t n) {
    return (struct regex_iter){.r = r, .s = s, .p = p, .n = n};
}

int regex_next(struct regex_iter *m, struct err *e) {
    while (m->from <= m->n) {
        size_t start = 0, end = 0;
        int rc = find(m, &start, &end, e);
        if (rc != 1)
            return rc;
        if (start == end && m->any && end == m->end) {
            m->from += m->from < m->n ? utf8_char(m->p + m->from, m->n - m->from, NULL) : 1;
            continue;
        }
        m->start = start;
        m->from = m->end = end;
        m->any = true;
        return 1;
    }
    return 0;
}
