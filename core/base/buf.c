#include "core/base/buf.h"

#include "core/base/wipe.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct rbuf rbuf_of(const void *p, size_t n) {
    return (struct rbuf){.p = p, .n = n};
}

const uint8_t *rbuf_bytes(struct rbuf *r, size_t n) {
    if (r->bad || n > r->n - r->off) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *p = r->p + r->off;
    r->off += n;
    return p;
}

void rbuf_skip(struct rbuf *r, size_t n) {
    (void)rbuf_bytes(r, n);
}

static uint64_t take(struct rbuf *r, size_t n) {
    const uint8_t *p = rbuf_bytes(r, n);
    uint64_t v = 0;
    for (size_t i = 0; p && i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t rbuf_u8(struct rbuf *r) {
    return (uint8_t)take(r, 1);
}
uint16_t rbuf_u16(struct rbuf *r) {
    return (uint16_t)take(r, 2);
}
uint32_t rbuf_u32(struct rbuf *r) {
    return (uint32_t)take(r, 4);
}
uint64_t rbuf_u64(struct rbuf *r) {
    return take(r, 8);
}
float rbuf_f32(struct rbuf *r) {
    uint32_t u = rbuf_u32(r);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
double rbuf_f64(struct rbuf *r) {
    uint64_t u = rbuf_u64(r);
    double d;
    memcpy(&d, &u, sizeof d);
    return d;
}

int wbuf_room(struct wbuf *w, size_t n) {
    if (w->bad)
        return -1;
    size_t max = w->max ? w->max : SIZE_MAX / 4;
    if (n > max || w->n > max - n) {
        w->bad = true;
        return -1;
    }
    if (w->n + n + 1 <= w->cap)
        return 0;
    size_t need = w->n + n + 1, cap = w->cap ? w->cap : 64;
    while (cap < need)
        cap *= 2;
    uint8_t *p = malloc(cap); /* not realloc: it could leave a copy of secret text behind */
    if (!p) {
        w->bad = true;
        return -1;
    }
    if (w->n)
        memcpy(p, w->p, w->n);
    wipe_free(w->p, w->cap);
    w->p = p;
    w->cap = cap;
    return 0;
}

void wbuf_put(struct wbuf *w, const void *p, size_t n) {
    if (n == 0 || wbuf_room(w, n) != 0)
        return;
    memcpy(w->p + w->n, p, n);
    w->n += n;
}

static void put(struct wbuf *w, uint64_t v, size_t n) {
    uint8_t b[8];
    for (size_t i = 0; i < n; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    wbuf_put(w, b, n);
}

void wbuf_u8(struct wbuf *w, uint8_t v) {
    put(w, v, 1);
}
void wbuf_u16(struct wbuf *w, uint16_t v) {
    put(w, v, 2);
}
void wbuf_u32(struct wbuf *w, uint32_t v) {
    put(w, v, 4);
}
void wbuf_u64(struct wbuf *w, uint64_t v) {
    put(w, v, 8);
}
void wbuf_f32(struct wbuf *w, float v) {
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    put(w, u, 4);
}
void wbuf_str(struct wbuf *w, const char *s) {
    wbuf_put(w, s, strlen(s));
}

void wbuf_fmt(struct wbuf *w, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        w->bad = true;
    else if (wbuf_room(w, (size_t)n) == 0) {
        vsnprintf((char *)w->p + w->n, (size_t)n + 1, fmt, again);
        w->n += (size_t)n;
    }
    va_end(again);
}

const char *wbuf_cstr(struct wbuf *w) {
    if (w->bad || !w->p)
        return "";
    w->p[w->n] = '\0';
    return (const char *)w->p;
}

void wbuf_clear(struct wbuf *w) {
    wipe(w->p, w->n);
    w->n = 0;
    w->bad = false;
}

void wbuf_free(struct wbuf *w) {
    wipe_free(w->p, w->cap);
    *w = (struct wbuf){.max = w->max};
}
