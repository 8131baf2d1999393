#include "tok/normalize.h"

#include "core/base/wipe.h"
#include "tok/unicode_delta.h"
#include "tok/utf8.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static const uint32_t new_word[][2] = {UNICODE_NEW_WORD};
static const uint32_t inert[][2] = {UNICODE_INERT};
static const int32_t lower[][3] = {UNICODE_LOWER};

static bool in_ranges(const uint32_t (*r)[2], size_t n, uint32_t cp) {
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (cp > r[mid][1])
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && cp >= r[lo][0];
}

/* The normal forms that ids have to agree with are those of an older Unicode than utf8proc's: what it did not know yet
 * is neither decomposed nor composed nor reordered. */
static bool is_inert(uint32_t cp) {
    return in_ranges(inert, sizeof inert / sizeof inert[0], cp);
}

/* A growable list of code points; holds text, so it is wiped. */
struct points {
    int32_t *p;
    size_t n, cap;
    bool bad;
};

static bool points_room(struct points *v, size_t more) {
    if (v->cap - v->n >= more)
        return true;
    size_t cap = v->cap ? v->cap : 256;
    while (cap - v->n < more)
        cap *= 2;
    int32_t *p = malloc(cap * sizeof *p);
    if (!p) {
        v->bad = true;
        return false;
    }
    if (v->n)
        memcpy(p, v->p, v->n * sizeof *p);
    wipe_free(v->p, v->cap * sizeof *v->p);
    v->p = p;
    v->cap = cap;
    return true;
}

static int combining_class(int32_t cp) {
    int c = utf8proc_get_property(cp)->combining_class;
    return c && is_inert((uint32_t)cp) ? 0 : c;
}

/* Sorts combining marks by class, stably. utf8proc does this with an insertion sort, which takes hours on a megabyte of
 * marks in the wrong order; this is a merge sort. */
static void sort_marks(int32_t *p, size_t n, int32_t *tmp) {
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, j = half, k = 0;
    sort_marks(p, half, tmp);
    sort_marks(p + half, n - half, tmp);
    while (i < half && j < n)
        tmp[k++] = combining_class(p[j]) < combining_class(p[i]) ? p[j++] : p[i++];
    while (i < half)
        tmp[k++] = p[i++];
    memcpy(p, tmp, k * sizeof *p);
}

static bool order_marks(struct points *v) {
    int32_t *tmp = NULL;
    size_t n_tmp = 0;
    bool ok = true;
    for (size_t i = 0; i < v->n && ok;) {
        size_t j = i;
        bool sorted = true;
        int last = 0, c;
        for (; j < v->n && (c = combining_class(v->p[j])) != 0; j++) {
            sorted = sorted && c >= last;
            last = c;
        }
        if (!sorted) {
            if (!tmp) {
                n_tmp = v->n;
                tmp = malloc(n_tmp * sizeof *tmp);
                ok = tmp != NULL;
            }
            if (ok)
                sort_marks(v->p + i, j - i, tmp);
        }
        i = j + (j == i);
    }
    wipe_free(tmp, n_tmp * sizeof *tmp);
    return ok;
}

/* Appends decomposed and ordered code points, composed if so asked. */
static void put_stretch(int32_t *p, size_t n, bool compose, struct wbuf *out) {
    utf8proc_ssize_t k = (utf8proc_ssize_t)n;
    if (compose)
        k = utf8proc_normalize_utf32(p, k, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (utf8proc_ssize_t i = 0; i < k; i++) {
        uint8_t b[4];
        wbuf_put(out, b, utf8_put(b, (uint32_t)p[i]));
    }
}

/* Appends the normal form of n bytes of valid UTF-8. */
static void put_form(enum norm_kind kind, const uint8_t *p, size_t n, struct wbuf *out) {
    bool compose = kind == NORM_NFC || kind == NORM_NFKC;
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    struct points v = {0};
    if (kind == NORM_NFKC || kind == NORM_NFKD)
        options |= UTF8PROC_COMPAT;
    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        int boundary = 0;
        i += utf8_char(p + i, n - i, &cp);
        if (!points_room(&v, 32)) /* the longest decomposition has 18 */
            break;
        utf8proc_ssize_t k =
            is_inert(cp) ? -1 : utf8proc_decompose_char((int32_t)cp, v.p + v.n, 32, options, &boundary);
        if (k < 0 || k > 32)
            v.p[v.n++] = (int32_t)cp;
        else
            v.n += (size_t)k;
    }
    if (v.bad || !order_marks(&v)) {
        out->bad = true;
    } else {
        for (size_t from = 0, to; from < v.n; from = to) {
            /* stretches that begin with an inert character, which nothing before it composes with */
            to = from + 1;
            while (to < v.n && !is_inert((uint32_t)v.p[to]))
                to++;
            put_stretch(v.p + from, to - from, compose, out);
        }
    }
    wipe_free(v.p, v.cap * sizeof *v.p);
}

static int32_t lowercase(int32_t cp) {
    for (size_t i = 0; i < sizeof lower / sizeof lower[0] && cp >= lower[i][0]; i++)
        if (cp <= lower[i][1])
            return cp + lower[i][2];
    return utf8proc_tolower(cp);
}

static void put_lowercase(const uint8_t *p, size_t n, struct wbuf *out) {
    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        uint8_t b[4];
        i += utf8_char(p + i, n - i, &cp);
        if (cp == 0x130) /* the one whose full lower case is two characters */
            wbuf_str(out, "i\xcc\x87");
        else
            wbuf_put(out, b, utf8_put(b, (uint32_t)lowercase((int32_t)cp)));
    }
}

/* Runs one of the character-wise steps over the valid stretches, and passes the rest on. */
static void step_characters(enum norm_kind kind, const uint8_t *p, size_t n, struct wbuf *out) {
    for (size_t i = 0; i < n;) {
        size_t k = utf8_valid_prefix(p + i, n - i);
        if (k && kind == NORM_LOWERCASE)
            put_lowercase(p + i, k, out);
        else if (k)
            put_form(kind, p + i, k, out);
        i += k;
        if (i < n)
            wbuf_u8(out, p[i++]);
    }
}

bool unicode_is_space(uint32_t cp) {
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 || cp == 0x202f || cp == 0x205f ||
           cp == 0x3000;
}

bool unicode_is_word(uint32_t cp) {
    switch (utf8proc_category((int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* circled and squared letters are alphabetic, the joiners belong to words */
        return (cp >= 0x24b6 && cp <= 0x24e9) || (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) ||
               (cp >= 0x1f170 && cp <= 0x1f189) || cp == 0x200c || cp == 0x200d ||
               in_ranges(new_word, sizeof new_word / sizeof new_word[0], cp);
    }
}

static void step_strip(const struct norm_step *s, const uint8_t *p, size_t n, struct wbuf *out) {
    uint32_t cp;
    size_t k;
    while (s->left && n && (k = utf8_char(p, n, &cp)) && unicode_is_space(cp)) {
        p += k;
        n -= k;
    }
    while (s->right && n) {
        k = 1;
        while (k < 4 && k < n && (p[n - k] & 0xc0) == 0x80)
            k++;
        if (utf8_char(p + n - k, k, &cp) != k || !unicode_is_space(cp))
            break;
        n -= k;
    }
    wbuf_put(out, p, n);
}

static int step_replace(const struct norm_step *s, struct regex_scratch *scratch, const uint8_t *p, size_t n,
                        struct wbuf *out, struct err *e) {
    if (!s->regex) {
        while (n) {
            const uint8_t *q = memmem(p, n, s->from, s->n_from);
            size_t k = q ? (size_t)(q - p) : n;
            wbuf_put(out, p, k);
            if (q) {
                wbuf_put(out, s->to, s->n_to);
                k += s->n_from;
            }
            p += k;
            n -= k;
        }
        return 0;
    }
    for (size_t i = 0; i < n;) {
        size_t k = utf8_valid_prefix(p + i, n - i), at = 0;
        struct regex_iter m = regex_iter_of(s->regex, scratch, p + i, k);
        int found;
        while ((found = regex_next(&m, e)) == 1) {
            wbuf_put(out, p + i + at, m.start - at);
            wbuf_put(out, s->to, s->n_to);
            at = m.end;
        }
        if (found < 0)
            return -1;
        wbuf_put(out, p + i + at, k - at);
        i += k;
        if (i < n)
            wbuf_u8(out, p[i++]);
    }
    return 0;
}

static bool is_ascii(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] >= 0x80)
            return false;
    return true;
}

static int run_step(const struct norm_step *s, struct regex_scratch *scratch, const uint8_t *p, size_t n, bool prefix,
                    struct wbuf *out, struct err *e) {
    switch (s->kind) {
    case NORM_STRIP:
        step_strip(s, p, n, out);
        return 0;
    case NORM_PREPEND:
        if (n && prefix)
            wbuf_put(out, s->to, s->n_to);
        wbuf_put(out, p, n);
        return 0;
    case NORM_REPLACE:
        return step_replace(s, scratch, p, n, out, e);
    case NORM_LOWERCASE:
        step_characters(s->kind, p, n, out);
        return 0;
    default:
        if (is_ascii(p, n))
            wbuf_put(out, p, n);
        else
            step_characters(s->kind, p, n, out);
        return 0;
    }
}

int norm_run(const struct norm *m, struct regex_scratch *scratch, const uint8_t *p, size_t n, bool prefix,
             struct wbuf *out, struct err *e) {
    struct wbuf buf[2] = {{.max = norm_bound(n)}, {.max = norm_bound(n)}};
    int rc = 0;
    for (int i = 0; i < m->n && rc == 0; i++) {
        struct wbuf *to = &buf[i & 1];
        wbuf_clear(to);
        rc = run_step(&m->step[i], scratch, p, n, prefix, to, e);
        if (rc == 0 && to->bad)
            rc = err_set(e, ERR_MEMORY, "the text grows too large when it is normalised");
        p = to->p;
        n = to->n;
    }
    if (rc == 0)
        wbuf_put(out, p, n);
    wbuf_free(&buf[0]);
    wbuf_free(&buf[1]);
    return rc;
}

void norm_free(struct norm *m) {
    for (int i = 0; i < m->n; i++) {
        free(m->step[i].from);
        free(m->step[i].to);
        regex_free(m->step[i].regex);
    }
    *m = (struct norm){0};
}
