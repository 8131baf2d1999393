/* core/base/buf.h - a bounds-checked little-endian reader over bytes that are not trusted, and a growable byte buffer.
 * The reader has a sticky first failure: after one out-of-bounds read every further read gives zeros and r->bad stays
 * set, so a parser may read a whole record and look once. Bounds are checked by subtraction, never by adding a length.
 */
#ifndef CORE_BASE_BUF_H
#define CORE_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rbuf {
    const uint8_t *p; /* borrowed */
    size_t n;         /* bytes at p */
    size_t off;       /* next byte to read; off <= n always */
    bool bad;         /* a read went past the end; off is where the first such read stood */
};

struct rbuf rbuf_of(const void *p, size_t n);
static inline size_t rbuf_left(const struct rbuf *r) {
    return r->n - r->off;
}
uint8_t rbuf_u8(struct rbuf *r);
uint16_t rbuf_u16(struct rbuf *r);
uint32_t rbuf_u32(struct rbuf *r);
uint64_t rbuf_u64(struct rbuf *r);
float rbuf_f32(struct rbuf *r);
double rbuf_f64(struct rbuf *r);
/* A pointer to the next n bytes (borrowed, valid as long as the memory behind r), or NULL with r->bad set. */
const uint8_t *rbuf_bytes(struct rbuf *r, size_t n);
void rbuf_skip(struct rbuf *r, size_t n);

/* Growable bytes. Zero-initialise to start. A failed allocation, or growth over max (when max is not 0), sets bad and
 * drops the write; check bad once at the end. Content may be secret: wbuf_free wipes it, and growth leaves no copy. */
struct wbuf {
    uint8_t *p;
    size_t n, cap;
    size_t max;
    bool bad;
};

void wbuf_put(struct wbuf *w, const void *p, size_t n);
void wbuf_u8(struct wbuf *w, uint8_t v);
void wbuf_u16(struct wbuf *w, uint16_t v);
void wbuf_u32(struct wbuf *w, uint32_t v);
void wbuf_u64(struct wbuf *w, uint64_t v);
void wbuf_f32(struct wbuf *w, float v);
void wbuf_str(struct wbuf *w, const char *s);
void wbuf_fmt(struct wbuf *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Makes room for n more bytes; -1 and bad when that cannot be had. */
int wbuf_room(struct wbuf *w, size_t n);
/* The content as a C string (a NUL stands behind it, not counted in n); "" when bad or empty. */
const char *wbuf_cstr(struct wbuf *w);
void wbuf_clear(struct wbuf *w); /* n = 0, wiped, memory kept */
void wbuf_free(struct wbuf *w);

#endif
