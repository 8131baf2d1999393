#include "tok/utf8.h"

#include <string.h>

/* Bytes of a character by its first byte, and the range that its second byte must lie in (Unicode, table 3-7). */
static size_t lead(uint8_t b, uint8_t *lo, uint8_t *hi) {
    *lo = 0x80;
    *hi = 0xbf;
    if (b < 0x80)
        return 1;
    if (b < 0xc2)
        return 0;
    if (b < 0xe0)
        return 2;
    if (b < 0xf0) {
        if (b == 0xe0)
            *lo = 0xa0;
        if (b == 0xed)
            *hi = 0x9f;
        return 3;
    }
    if (b < 0xf5) {
        if (b == 0xf0)
            *lo = 0x90;
        if (b == 0xf4)
            *hi = 0x8f;
        return 4;
    }
    return 0;
}

size_t utf8_char(const uint8_t *p, size_t n, uint32_t *cp) {
    uint8_t lo, hi;
    size_t k = lead(p[0], &lo, &hi);
    if (k == 0 || k > n)
        return 0;
    uint32_t c = k == 1 ? p[0] : p[0] & (0x7fu >> k);
    for (size_t i = 1; i < k; i++) {
        if (p[i] < lo || p[i] > hi)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
        lo = 0x80;
        hi = 0xbf;
    }
    if (cp)
        *cp = c;
    return k;
}

int utf8_partial(const uint8_t *p, size_t n) {
    uint8_t lo, hi;
    size_t k = lead(p[0], &lo, &hi);
    if (n >= k)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if (p[i] < lo || p[i] > hi)
            return 0;
        lo = 0x80;
        hi = 0xbf;
    }
    return 1;
}

size_t utf8_put(uint8_t p[4], uint32_t cp) {
    if (cp < 0x80) {
        p[0] = (uint8_t)cp;
        return 1;
    }
    size_t k = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = k; i-- > 1;) {
        p[i] = (uint8_t)(0x80 | (cp & 0x3f));
        cp >>= 6;
    }
    p[0] = (uint8_t)((0xf00u >> k & 0xf0) | cp);
    return k;
}

size_t utf8_valid_prefix(const uint8_t *p, size_t n) {
    size_t i = 0;
    while (i < n) {
        uint64_t w;
        if (n - i >= 8 && (memcpy(&w, p + i, 8), (w & 0x8080808080808080u) == 0)) {
            i += 8;
            continue;
        }
        size_t k = utf8_char(p + i, n - i, NULL);
        if (k == 0)
            break;
        i += k;
    }
    return i;
}
