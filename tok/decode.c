/* Token ids to text. One path: tokenizer_decode is a stream that is fed the whole list. */
#include "tok/tok_impl.h"
#include "tok/utf8.h"

#include <string.h>

void tok_stream_init(struct tok_stream *s, const struct tokenizer *t, bool keep_special, bool mid_text) {
    *s = (struct tok_stream){.t = t, .keep_special = keep_special, .started = mid_text};
}

static void put(struct tok_stream *s, const void *p, size_t n, struct wbuf *out) {
    s->started = s->started || n != 0;
    wbuf_put(out, p, n);
}

/* The held bytes will never become a character. SentencePiece shows one U+FFFD for each of them. */
void tok_stream_flush(struct tok_stream *s, struct wbuf *out) {
    for (unsigned i = 0; i < s->n_held; i++)
        put(s, "\xef\xbf\xbd", 3, out);
    s->n_held = 0;
}

static void put_byte(struct tok_stream *s, uint8_t b, struct wbuf *out) {
    s->held[s->n_held++] = b;
    while (s->n_held) {
        size_t k = utf8_char(s->held, s->n_held, NULL);
        if (k) {
            put(s, s->held, k, out);
        } else if (utf8_partial(s->held, s->n_held)) {
            return;
        } else {
            put(s, "\xef\xbf\xbd", 3, out);
            k = 1;
        }
        s->n_held -= (uint8_t)k;
        memmove(s->held, s->held + k, s->n_held);
    }
}

static void put_spm(struct tok_stream *s, uint32_t id, struct wbuf *out) {
    const struct tokenizer *t = s->t;
    size_t n;
    const uint8_t *p = vocab_bytes(&t->vocab, id, &n);
    enum piece_type type = vocab_type(&t->vocab, id);
    if (type == PIECE_BYTE) {
        s->started = true;
        put_byte(s, (uint8_t)byte_piece_value(p, n), out);
        return;
    }
    tok_stream_flush(s, out);
    if (type == PIECE_CONTROL) {
        if (s->keep_special)
            put(s, p, n, out);
        return;
    }
    if (type == PIECE_UNKNOWN) {
        put(s, t->spm.unk_surface, strlen(t->spm.unk_surface), out);
        return;
    }
    if (!s->started && (t->spm.dummy_prefix || t->spm.remove_extra) && n >= META_LEN &&
        memcmp(p, META, META_LEN) == 0) {
        p += META_LEN;
        n -= META_LEN;
        s->started = !t->spm.remove_extra; /* else all leading space goes */
    }
    while (n) {
        const uint8_t *q = memmem(p, n, META, META_LEN);
        size_t k = q ? (size_t)(q - p) : n;
        put(s, p, k, out);
        if (q) {
            put(s, " ", 1, out);
            k += META_LEN;
        }
        p += k;
        n -= k;
    }
}

void tok_stream_put(struct tok_stream *s, uint32_t id, struct wbuf *out) {
    if (id < s->t->vocab.n)
        put_spm(s, id, out);
}

int tokenizer_decode(const struct tokenizer *t, const uint32_t *ids, size_t n, bool keep_special, struct wbuf *out,
                     struct err *e) {
    struct tok_stream s;
    tok_stream_init(&s, t, keep_special, false);
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= t->vocab.n)
            return err_set(e, ERR_USAGE, "token id %u is outside the vocabulary (0 to %u)", ids[i], t->vocab.n - 1);
        tok_stream_put(&s, ids[i], out);
    }
    tok_stream_flush(&s, out);
    return out->bad ? err_set(e, ERR_MEMORY, "out of memory decoding %zu tokens", n) : 0;
}
