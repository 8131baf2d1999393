#include "cmd/engine/stop.h"

#include <string.h>

/* Whether text ends, at its end, inside s: all of text is a beginning of s and s is longer. */
static bool begins(const char *s, const char *text, size_t n) {
    return strlen(s) > n && memcmp(s, text, n) == 0;
}

size_t stop_scan(const struct strings *stops, const char *text, size_t n, size_t shown, bool *hit) {
    size_t first = n, first_end = n + 1;
    for (int i = 0; i < stops->n; i++) {
        size_t len = strlen(stops->p[i]);
        const char *at = memmem(text + shown, n - shown, stops->p[i], len);
        if (!at)
            continue;
        size_t begin = (size_t)(at - text), end = begin + len;
        if (end < first_end || (end == first_end && begin < first)) {
            first = begin;
            first_end = end;
        }
    }
    *hit = first_end <= n;
    if (*hit)
        return first;
    for (size_t at = shown; at < n; at++)
        for (int i = 0; i < stops->n; i++)
            if (begins(stops->p[i], text + at, n - at))
                return at;
    return n;
}
