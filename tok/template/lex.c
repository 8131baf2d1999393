#include "tok/template/lex.h"

#include "tok/template/ops.h"

#include <stdio.h>
#include <string.h>

struct lexer {
    struct tarena *a;
    struct err *e;
    const char *name;
    const char *p; /* normalised source, a NUL behind it */
    size_t n, at;
    uint32_t line;      /* of p[counted] */
    size_t counted;     /* newlines before this one are in line */
    bool line_starting; /* the last match ended with a newline */
    struct ttoken *tok;
    size_t n_tok, cap_tok;
    char open[150]; /* brackets to be closed */
    size_t n_open;
};

static uint32_t line_at(struct lexer *x, size_t off) {
    for (; x->counted < off; x->counted++)
        x->line += x->p[x->counted] == '\n';
    return x->line;
}

static int fail(struct lexer *x, const char *what) {
    return err_set(x->e, ERR_MODEL, "%s, line %u: %s", x->name, line_at(x, x->at), what);
}

static int memory(struct lexer *x) {
    return err_set(x->e, ERR_MEMORY, "%s: the template needs too much memory", x->name);
}

static struct ttoken *push(struct lexer *x, enum tlex_type type) {
    if (tarena_grow(x->a, (void **)&x->tok, x->n_tok, &x->cap_tok, sizeof *x->tok) != 0) {
        memory(x);
        return NULL;
    }
    struct ttoken *t = &x->tok[x->n_tok++];
    *t = (struct ttoken){.type = type, .line = line_at(x, x->at)};
    return t;
}

/* Copies the source with \r\n and \r as \n, and without the newline at its end. */
static int normalise(struct lexer *x, const char *src, size_t n) {
    char *p = tarena_alloc(x->a, n + 1);
    if (!p)
        return memory(x);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        p[k++] = src[i] == '\r' ? '\n' : src[i];
        if (src[i] == '\r' && i + 1 < n && src[i + 1] == '\n')
            i++;
    }
    if (k && p[k - 1] == '\n')
        p[--k] = '\0';
    x->p = p;
    x->n = k;
    return 0;
}

static bool at_pair(const struct lexer *x, size_t off, char a, char b) {
    return x->n - off >= 2 && x->p[off] == a && x->p[off + 1] == b;
}

static void skip_space(struct lexer *x) {
    uint32_t cp;
    while (x->at < x->n) {
        size_t k = tstr_next(x->p + x->at, x->n - x->at, &cp);
        if (!tstr_space(cp))
            break;
        x->at += k;
    }
}

static void ended(struct lexer *x) {
    x->line_starting = x->at && x->p[x->at - 1] == '\n';
}

/* Behind the closing characters of a tag: '-' strips all white space, '+' keeps, a block or comment drops one newline.
 */
static void after_tag(struct lexer *x, char sign, bool drop_newline) {
    if (sign == '-')
        skip_space(x);
    else if (sign != '+' && drop_newline && x->at < x->n && x->p[x->at] == '\n')
        x->at++;
    ended(x);
}

/* The text from..to before a tag whose opening characters carry sign. */
static int data_before(struct lexer *x, size_t from, size_t to, char sign, bool variable) {
    struct tstr s = tstr_of(x->p + from, to - from, false);
    if (sign == '-') {
        s = tstr_strip(s, NULL, false, true);
    } else if (sign != '+' && !variable) {
        size_t l = s.n;
        while (l && s.p[l - 1] != '\n')
            l--;
        /* Only white space between the line's start and the tag goes. */
        if ((l || x->line_starting) && tstr_strip(tstr_sub(s, l, s.n - l), NULL, true, false).n == 0)
            s.n = l;
    }
    if (s.n == 0)
        return 0;
    x->at = from;
    struct ttoken *t = push(x, TT_DATA);
    if (!t)
        return -1;
    t->s = s;
    return 0;
}

static int comment(struct lexer *x) {
    const char *end = NULL;
    for (size_t i = x->at; i < x->n && !end; i++)
        if (at_pair(x, i, '#', '}'))
            end = x->p + i;
    if (!end)
        return fail(x, "the comment is not closed");
    size_t off = (size_t)(end - x->p);
    char sign = off > x->at ? end[-1] : '\0';
    x->at = off + 2;
    after_tag(x, sign, true);
    return 0;
}

/* {% raw %} at off (its opening characters)? *end: behind it. A sign at its end is in *sign. */
static bool raw_tag(const struct lexer *x, size_t off, const char *word, size_t *end, char *sign, bool plus) {
    struct lexer y = *x;
    y.at = off + 2;
    if (y.at < y.n && (y.p[y.at] == '-' || y.p[y.at] == '+'))
        y.at++;
    skip_space(&y);
    size_t k = strlen(word);
    if (y.n - y.at < k || memcmp(y.p + y.at, word, k) != 0)
        return false;
    y.at += k;
    skip_space(&y);
    *sign = y.at < y.n && (y.p[y.at] == '-' || (plus && y.p[y.at] == '+')) ? y.p[y.at] : '\0';
    y.at += *sign != '\0';
    if (!at_pair(&y, y.at, '%', '}'))
        return false;
    *end = y.at + 2;
    return true;
}

/* The text of a raw block, x->at behind its opening tag, up to and with {% endraw %}. */
static int raw(struct lexer *x) {
    for (size_t i = x->at; i < x->n; i++) {
        size_t end;
        char sign;
        if (!at_pair(x, i, '{', '%') || !raw_tag(x, i, "endraw", &end, &sign, true))
            continue;
        char open = i + 2 < x->n ? x->p[i + 2] : '\0';
        if (data_before(x, x->at, i, open, false) != 0)
            return -1;
        x->at = end;
        after_tag(x, sign, true);
        return 0;
    }
    return fail(x, "the raw block is not closed");
}

static int escape(struct lexer *x, struct tsink *k, const char *p, size_t n, size_t *used) {
    static const char plain[] = "\\'\"abfnrtv", meaning[] = "\\'\"\a\b\f\n\r\t\v";
    const char *hit = p[0] ? strchr(plain, p[0]) : NULL;
    *used = 1;
    if (p[0] == '\n')
        return 0;
    if (hit) {
        tsink_bytes(k, &meaning[hit - plain], 1, false);
        return 0;
    }
    size_t digits = p[0] == 'x' ? 2 : p[0] == 'u' ? 4 : p[0] == 'U' ? 8 : 0;
    uint32_t cp = 0;
    if (digits) {
        for (*used = 1; *used <= digits; (*used)++) {
            char c = *used < n ? p[*used] : '\0';
            int d = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
            if (d < 0 || cp >= TSTR_INVALID)
                return fail(x, "a \\x, \\u or \\U escape in a string is malformed");
            cp = cp << 4 | (uint32_t)d;
        }
        if (cp >= TSTR_INVALID || (cp >= 0xd800 && cp < 0xe000))
            return fail(x, "an escape in a string is not a character");
        tsink_char(k, cp, false);
    } else if (p[0] >= '0' && p[0] <= '7') {
        for (*used = 0; *used < 3 && *used < n && p[*used] >= '0' && p[*used] <= '7'; (*used)++)
            cp = cp << 3 | (uint32_t)(p[*used] - '0');
        tsink_char(k, cp, false);
    } else if (p[0] == 'N' || (unsigned char)p[0] >= 0x80) {
        return fail(x,
                    "the escape \\N{...}, or a backslash before a non-ASCII character, in a string is not supported");
    } else {
        tsink_bytes(k, "\\", 1, false);
        *used = 0; /* an unknown escape stands for itself */
    }
    return 0;
}

static int string(struct lexer *x) {
    char quote = x->p[x->at];
    size_t i = x->at + 1;
    while (i < x->n && x->p[i] != quote)
        i += x->p[i] == '\\' ? 2 : 1;
    if (i >= x->n)
        return fail(x, "the string is not closed");
    struct ttoken *t = push(x, TT_STRING);
    if (!t)
        return -1;
    const char *p = x->p + x->at + 1;
    size_t n = i - x->at - 1;
    struct tsink k = {.a = x->a};
    for (size_t j = 0, used; j < n; j += used) {
        const char *slash = memchr(p + j, '\\', n - j);
        used = slash ? (size_t)(slash - (p + j)) : n - j;
        tsink_bytes(&k, p + j, used, false);
        if (slash) {
            size_t more = 0;
            if (escape(x, &k, slash + 1, n - j - used - 1, &more) != 0)
                return -1;
            used += 1 + more;
        }
    }
    if (!tsink_ok(&k))
        return memory(x);
    t->s = tsink_str(&k);
    x->at = i + 1;
    return 0;
}

static bool digit(char c) {
    return c >= '0' && c <= '9';
}
static bool word(char c) {
    return digit(c) || c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

/* Digits with single underscores between them, from off: how far they reach. */
static size_t digits_end(const struct lexer *x, size_t off) {
    size_t i = off;
    while (i < x->n && (digit(x->p[i]) || (i > off && x->p[i] == '_' && i + 1 < x->n && digit(x->p[i + 1]))))
        i++;
    return i;
}

static int number(struct lexer *x) {
    const char *p = x->p;
    size_t whole = digits_end(x, x->at), end = whole;
    bool real = false;
    if (x->at == 0 || p[x->at - 1] != '.') { /* x.1.2 is two subscripts */
        size_t k = end < x->n && p[end] == '.' ? digits_end(x, end + 1) : end;
        if (k > end + 1) {
            end = k;
            real = true;
        }
        if (end < x->n && (p[end] | 32) == 'e') {
            size_t sign = end + 1 < x->n && (p[end + 1] == '+' || p[end + 1] == '-');
            k = digits_end(x, end + 1 + sign);
            if (k > end + 1 + sign) {
                end = k;
                real = true;
            }
        }
    }
    char text[64];
    size_t n = 0;
    if (!real && p[x->at] == '0') {
        if (whole > x->at + 1 || (x->at + 1 < x->n && word(p[x->at + 1])))
            return fail(x, "numbers with a leading zero, or in another base than ten, are not supported");
    }
    for (size_t i = x->at; i < end && n < sizeof text - 1; i++)
        if (p[i] != '_')
            text[n++] = p[i];
    struct ttoken *t = push(x, real ? TT_FLOAT : TT_INTEGER);
    if (!t)
        return -1;
    struct tstr s = tstr_of(text, n, false);
    if (n >= sizeof text - 1 || (real ? tval_parse_double(s, &t->f) : tval_parse_int(s, &t->i)) != 0)
        return fail(x, "the number is too large or too long");
    x->at = end;
    return 0;
}

static int operator(struct lexer *x) {
    static const struct {
        char text[3], op;
    } two[] = {{"**", 'p'}, {"//", 'f'}, {"==", 'e'}, {"!=", 'n'}, {"<=", 'l'}, {">=", 'g'}};
    struct ttoken *t = push(x, TT_OP);
    if (!t)
        return -1;
    char c = x->p[x->at];
    for (size_t i = 0; i < sizeof two / sizeof two[0]; i++)
        if (at_pair(x, x->at, two[i].text[0], two[i].text[1]))
            t->op = two[i].op;
    if (t->op) {
        x->at += 2;
        return 0;
    }
    if (!c || !strchr("+-*/%~[](){}<>=.:|,;", c)) {
        char what[80];
        if ((unsigned char)c > 32 && (unsigned char)c < 127)
            snprintf(what, sizeof what, "unexpected character '%c'", c);
        else
            snprintf(what, sizeof what, "unexpected character 0x%02x", (unsigned char)c);
        return fail(x, what);
    }
    if (strchr("([{", c)) {
        if (x->n_open == sizeof x->open)
            return fail(x, "brackets are nested too deep");
        x->open[x->n_open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (strchr(")]}", c) && (!x->n_open || x->open[--x->n_open] != c)) {
        return fail(x, "a closing bracket does not match");
    }
    t->op = c;
    x->at++;
    return 0;
}

/* Inside {{ }} or {% %}: tokens up to and with the end of the tag. */
static int inside(struct lexer *x, bool variable) {
    char close = variable ? '}' : '%';
    for (;;) {
        skip_space(x);
        if (x->at >= x->n)
            return fail(x, variable ? "{{ is not closed" : "{% is not closed");
        char c = x->p[x->at];
        bool sign = c == '-' || (c == '+' && !variable);
        if (x->n_open == 0 && at_pair(x, x->at + sign, close, '}')) {
            if (!push(x, variable ? TT_VAR_END : TT_BLOCK_END))
                return -1;
            x->at += 2 + (size_t)sign;
            after_tag(x, sign ? c : '\0', !variable);
            return 0;
        }
        if (digit(c)) {
            if (number(x) != 0)
                return -1;
        } else if (word(c)) {
            struct ttoken *t = push(x, TT_NAME);
            if (!t)
                return -1;
            size_t end = x->at;
            while (end < x->n && word(x->p[end]))
                end++;
            t->s = tstr_of(x->p + x->at, end - x->at, false);
            x->at = end;
        } else if (c == '\'' || c == '"') {
            if (string(x) != 0)
                return -1;
        } else if (operator(x) != 0) {
            return -1;
        }
    }
}

/* Text up to the next tag, and the tag. */
static int piece(struct lexer *x) {
    size_t from = x->at, i = from, end;
    while (i < x->n && !(x->p[i] == '{' && i + 1 < x->n && strchr("%{#", x->p[i + 1])))
        i++;
    if (i >= x->n) {
        int rc = data_before(x, from, x->n, '+', false);
        x->at = x->n;
        return rc;
    }
    char kind = x->p[i + 1], sign = i + 2 < x->n ? x->p[i + 2] : '\0', end_sign;
    bool is_raw = kind == '%' && raw_tag(x, i, "raw", &end, &end_sign, false);
    if (data_before(x, from, i, sign, kind == '{') != 0)
        return -1;
    x->at = i;
    if (is_raw) {
        x->at = end;
        after_tag(x, end_sign, false);
        return raw(x);
    }
    if (kind != '#' && !push(x, kind == '{' ? TT_VAR_BEGIN : TT_BLOCK_BEGIN))
        return -1;
    x->at = i + 2 + (sign == '-' || sign == '+');
    x->line_starting = false;
    x->n_open = 0;
    return kind == '#' ? comment(x) : inside(x, kind == '{');
}

int tlex(struct tarena *a, const char *src, size_t n, const char *name, struct ttoken **out, size_t *n_out,
         struct err *e) {
    struct lexer x = {.a = a, .e = e, .name = name, .line = 1, .line_starting = true};
    if (normalise(&x, src, n) != 0)
        return -1;
    while (x.at < x.n)
        if (piece(&x) != 0)
            return -1;
    if (!push(&x, TT_EOF))
        return -1;
    *out = x.tok;
    *n_out = x.n_tok;
    return 0;
}

void tlex_describe(const struct ttoken *t, char *out, size_t cap) {
    static const struct {
        char op, text[3];
    } two[] = {{'p', "**"}, {'f', "//"}, {'e', "=="}, {'n', "!="}, {'l', "<="}, {'g', ">="}};
    switch (t->type) {
    case TT_EOF:
        snprintf(out, cap, "the end of the template");
        return;
    case TT_DATA:
        snprintf(out, cap, "text");
        return;
    case TT_VAR_BEGIN:
        snprintf(out, cap, "'{{'");
        return;
    case TT_VAR_END:
        snprintf(out, cap, "'}}'");
        return;
    case TT_BLOCK_BEGIN:
        snprintf(out, cap, "'{%%'");
        return;
    case TT_BLOCK_END:
        snprintf(out, cap, "'%%}'");
        return;
    case TT_NAME:
        snprintf(out, cap, "'%.*s'", t->s.n < 60 ? (int)t->s.n : 60, t->s.p);
        return;
    case TT_STRING:
        snprintf(out, cap, "a string");
        return;
    case TT_INTEGER:
    case TT_FLOAT:
        snprintf(out, cap, "a number");
        return;
    case TT_OP:
        for (size_t i = 0; i < sizeof two / sizeof two[0]; i++)
            if (two[i].op == t->op) {
                snprintf(out, cap, "'%s'", two[i].text);
                return;
            }
        snprintf(out, cap, "'%c'", t->op);
        return;
    }
}
