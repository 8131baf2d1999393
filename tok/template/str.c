#include "tok/template/str.h"

#include <string.h>
#include <utf8proc.h>

struct tstr tstr_lit(const char *s) {
    return tstr_of(s, strlen(s), false);
}

struct tstr tstr_of(const char *p, size_t n, bool user) {
    return (struct tstr){.p = p, .n = n, .user = user};
}

struct tstr tstr_sub(struct tstr s, size_t off, size_t n) {
    return (struct tstr){.p = s.p + off, .mark = s.mark ? s.mark + off : NULL, .n = n, .user = s.user, .safe = s.safe};
}

bool tstr_has_user(struct tstr s) {
    return s.n && (s.mark ? memchr(s.mark, 1, s.n) != NULL : s.user);
}

bool tstr_is(struct tstr s, const char *lit) {
    return tstr_eq(s, tstr_lit(lit));
}

bool tstr_eq(struct tstr a, struct tstr b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

int tstr_cmp(struct tstr a, struct tstr b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0; /* the order of UTF-8 bytes is that of code points */
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

int tstr_word(struct tstr s, const char *words) {
    int i = 0;
    for (size_t k; *words; words += k + (words[k] == ' '), i++) {
        k = strcspn(words, " ");
        if (tstr_eq(s, tstr_of(words, k, false)))
            return i;
    }
    return -1;
}

size_t tstr_next(const char *p, size_t n, uint32_t *cp) {
    const uint8_t *u = (const uint8_t *)p;
    *cp = u[0];
    if (u[0] < 0x80)
        return 1;
    size_t len = u[0] >= 0xf0 && u[0] < 0xf5   ? 4
                 : u[0] >= 0xe0 && u[0] < 0xf0 ? 3
                 : u[0] >= 0xc2 && u[0] < 0xe0 ? 2
                                               : 0;
    *cp = TSTR_INVALID;
    if (!len || len > n)
        return 1;
    uint32_t c = u[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return 1;
        c = c << 6 | (u[i] & 0x3fu);
    }
    if ((len == 3 && (c < 0x800 || (c >= 0xd800 && c < 0xe000))) || (len == 4 && (c < 0x10000 || c > 0x10ffff)))
        return 1;
    *cp = c;
    return len;
}

size_t tstr_prev(const char *p, size_t n, uint32_t *cp) {
    /* A lead byte never continues an earlier sequence, so a valid sequence that ends here is what tstr_next would find.
     */
    for (size_t k = 1; k <= 4 && k <= n; k++)
        if (tstr_next(p + n - k, k, cp) == k && *cp != TSTR_INVALID)
            return k;
    *cp = TSTR_INVALID;
    return 1;
}

size_t tstr_chars(struct tstr s) {
    size_t count = 0;
    uint32_t cp;
    for (size_t i = 0; i < s.n; i += tstr_next(s.p + i, s.n - i, &cp))
        count++;
    return count;
}

size_t tstr_offset(struct tstr s, size_t k) {
    size_t i = 0;
    uint32_t cp;
    for (; k && i < s.n; k--)
        i += tstr_next(s.p + i, s.n - i, &cp);
    return i;
}

size_t tstr_encode(char out[4], uint32_t cp) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)((0xf00u >> n & 0xf0) | cp);
    return n;
}

bool tstr_space(uint32_t cp) {
    return (cp >= 0x09 && cp <= 0x0d) || (cp >= 0x1c && cp <= 0x20) || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f ||
           cp == 0x3000;
}

bool tstr_printable(uint32_t cp) {
    if (cp == ' ')
        return true;
    if (cp >= TSTR_INVALID)
        return false;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

size_t tstr_find(struct tstr s, struct tstr needle, size_t from) {
    if (from > s.n || needle.n > s.n - from)
        return SIZE_MAX;
    if (needle.n == 0)
        return from;
    const char *hit = memmem(s.p + from, s.n - from, needle.p, needle.n);
    return hit ? (size_t)(hit - s.p) : SIZE_MAX;
}

size_t tstr_rfind(struct tstr s, struct tstr needle) {
    if (needle.n > s.n)
        return SIZE_MAX;
    for (size_t i = s.n - needle.n + 1; i-- > 0;)
        if (needle.n == 0 || memcmp(s.p + i, needle.p, needle.n) == 0)
            return i;
    return SIZE_MAX;
}

static bool strippable(const char *p, size_t len, uint32_t cp, const struct tstr *chars) {
    if (!chars)
        return tstr_space(cp);
    uint32_t other;
    for (size_t i = 0, k; i < chars->n; i += k) {
        k = tstr_next(chars->p + i, chars->n - i, &other);
        if (k == len && memcmp(p, chars->p + i, k) == 0)
            return true;
    }
    return false;
}

struct tstr tstr_strip(struct tstr s, const struct tstr *chars, bool left, bool right) {
    uint32_t cp;
    while (left && s.n) {
        size_t k = tstr_next(s.p, s.n, &cp);
        if (!strippable(s.p, k, cp, chars))
            break;
        s = tstr_sub(s, k, s.n - k);
    }
    while (right && s.n) {
        size_t k = tstr_prev(s.p, s.n, &cp);
        if (!strippable(s.p + s.n - k, k, cp, chars))
            break;
        s = tstr_sub(s, 0, s.n - k);
    }
    return s;
}

/* Room for n more bytes, with marks when the new bytes differ from the old ones in origin. */
static bool sink_room(struct tsink *k, size_t n, bool mixed) {
    if (k->over || k->a->bad)
        return false;
    if (k->max && n > k->max - k->n) {
        k->over = true;
        return false;
    }
    if (n > k->cap - k->n) {
        size_t cap = k->cap ? k->cap : 64;
        while (cap - k->n < n)
            cap *= 2; /* n and k->n are below the arena's bound, so this cannot overflow */
        char *p = tarena_alloc(k->a, cap);
        uint8_t *mark = k->mark ? tarena_alloc(k->a, cap) : NULL;
        if (k->a->bad)
            return false;
        if (k->n)
            memcpy(p, k->p, k->n);
        if (k->mark)
            memcpy(mark, k->mark, k->n);
        k->p = p;
        k->mark = mark;
        k->cap = cap;
    }
    if (mixed && !k->mark) {
        k->mark = tarena_alloc(k->a, k->cap);
        if (!k->mark)
            return false;
        memset(k->mark, k->user, k->n);
    }
    return true;
}

void tsink_put(struct tsink *k, struct tstr s) {
    if (s.n == 0)
        return;
    if (k->n == 0 && !s.mark)
        k->user = s.user;
    bool mixed = s.mark || (!k->mark && k->user != s.user);
    if (!sink_room(k, s.n, mixed))
        return;
    memcpy(k->p + k->n, s.p, s.n);
    if (k->mark && s.mark)
        memcpy(k->mark + k->n, s.mark, s.n);
    else if (k->mark)
        memset(k->mark + k->n, s.user, s.n);
    k->n += s.n;
}

void tsink_bytes(struct tsink *k, const char *p, size_t n, bool user) {
    tsink_put(k, tstr_of(p, n, user));
}

void tsink_char(struct tsink *k, uint32_t cp, bool user) {
    char b[4];
    tsink_bytes(k, b, tstr_encode(b, cp), user);
}

void tsink_lit(struct tsink *k, const char *s) {
    tsink_put(k, tstr_lit(s));
}

bool tsink_ok(const struct tsink *k) {
    return !k->over && !k->a->bad;
}

struct tstr tsink_str(const struct tsink *k) {
    return (struct tstr){.p = k->n ? k->p : "", .mark = k->mark, .n = k->n, .user = k->user};
}
