#include "core/draft/store_log.h"

#include "core/base/buf.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { RECORD_HEAD = 8 };
static const char magic[8] = "SIDRLOG1";

static uint32_t get_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Finds damage, not malice: FNV-1a over words, finished so that every bit counts. */
static uint32_t sum_of(uint32_t n, const uint8_t *tokens) {
    uint64_t h = 0xcbf29ce484222325u ^ n;
    for (uint32_t i = 0; i < n; i++)
        h = (h ^ get_u32(tokens + 4 * (size_t)i)) * 0x100000001b3u;
    h = (h ^ h >> 32) * 0xff51afd7ed558ccdu;
    return (uint32_t)(h >> 32);
}

void store_log_head(uint8_t out[STORE_LOG_HEAD], uint64_t tokenizer, uint32_t vocab) {
    memset(out, 0, STORE_LOG_HEAD);
    memcpy(out, magic, sizeof magic);
    for (int i = 0; i < 8; i++)
        out[8 + i] = (uint8_t)(tokenizer >> 8 * i);
    for (int i = 0; i < 4; i++)
        out[16 + i] = (uint8_t)(vocab >> 8 * i);
}

uint32_t store_log_token(const uint8_t *tokens, uint32_t i) {
    return get_u32(tokens + 4 * (size_t)i);
}

uint32_t store_log_next(const uint8_t *p, size_t n, size_t *off, const uint8_t **tokens) {
    if (*off > n || n - *off < RECORD_HEAD)
        return 0;
    const uint8_t *r = p + *off;
    uint32_t k = get_u32(r);
    if (k == 0 || k > STORE_LOG_TOKENS || (n - *off - RECORD_HEAD) / 4 < k ||
        get_u32(r + 4) != sum_of(k, r + RECORD_HEAD))
        return 0;
    *tokens = r + RECORD_HEAD;
    *off += RECORD_HEAD + 4 * (size_t)k;
    return k;
}

static int write_all(int fd, const uint8_t *p, size_t n, uint64_t at) {
    while (n > 0) {
        ssize_t k = pwrite(fd, p, n, (off_t)at);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return -1;
        p += k;
        n -= (size_t)k;
        at += (uint64_t)k;
    }
    return 0;
}

int store_log_append(int fd, uint64_t *end, const uint32_t *tokens, uint32_t n, struct err *e) {
    struct wbuf w = {0};
    int rc = -1;
    wbuf_u32(&w, n);
    wbuf_u32(&w, 0);
    for (uint32_t i = 0; i < n; i++)
        wbuf_u32(&w, tokens[i]);
    if (w.bad) {
        err_set(e, ERR_MEMORY, "out of memory for the draft store's log");
        goto out;
    }
    uint32_t sum = sum_of(n, w.p + RECORD_HEAD);
    for (int i = 0; i < 4; i++)
        w.p[4 + i] = (uint8_t)(sum >> 8 * i);
    if (write_all(fd, w.p, w.n, *end) != 0) {
        err_sys(e, errno, "cannot write to the draft store's log");
        if (ftruncate(fd, (off_t)*end) != 0) { /* the record that is not whole is found when the log is read */
        }
        goto out;
    }
    *end += w.n;
    rc = 0;
out:
    wbuf_free(&w);
    return rc;
}
