/* Token ids to text. One path: tokenizer_decode is a stream that is fed the whole list.
 *
 * One difference from the `tokenizers` library is on purpose. Its ByteFallback decoder looks at a run of byte pieces as
 * a whole: one wrong byte makes every byte of the run U+FFFD, also those of characters that were complete. A stream has
 * shown these already, so only the bytes that make no character are replaced here, as SentencePiece does. */
#include "tok/tok_impl.h"
#include "tok/utf8.h"

#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

void tok_stream_init(struct tok_stream *s, const struct tokenizer *t, bool keep_special, bool mid_text) {
    *s = (struct tok_stream){.t = t, .keep_special = keep_special, .started = mid_text};
}

/* Byte pieces that make no character are shown one U+FFFD each; bytes inside pieces, as is usual elsewhere, one for
 * each longest start of a character. */
static bool each_byte(const struct tokenizer *t) {
    return t->kind == KIND_SPM || t->hf.decode != DECODE_BYTES;
}

/* Whole characters. */
static void put(struct tok_stream *s, const void *p, size_t n, struct wbuf *out) {
    const uint8_t *b = p;
    if (n && !s->started && s->t->kind != KIND_SPM && s->t->hf.strip_first && b[0] == ' ') {
        b++;
        n--;
        s->started = true;
    }
    s->started = s->started || n != 0;
    wbuf_put(out, b, n);
}

static void put_replacements(struct tok_stream *s, unsigned n, struct wbuf *out) {
    for (unsigned i = each_byte(s->t) || n == 0 ? 0 : n - 1; i < n; i++)
        put(s, REPLACEMENT, 3, out);
}

void tok_stream_flush(struct tok_stream *s, struct wbuf *out) {
    put_replacements(s, s->n_held, out);
    s->n_held = 0;
}

static void put_byte(struct tok_stream *s, uint8_t b, struct wbuf *out) {
    for (;;) {
        s->held[s->n_held] = b;
        size_t n = s->n_held + 1u;
        if (utf8_char(s->held, n, NULL) == n) {
            put(s, s->held, n, out);
            s->n_held = 0;
            return;
        }
        if (utf8_partial(s->held, n)) {
            s->n_held = (uint8_t)n;
            return;
        }
        if (s->n_held == 0) {
            put(s, REPLACEMENT, 3, out);
            return;
        }
        tok_stream_flush(s, out); /* what was held ends here; b may start something */
    }
}

static void put_bytes(struct tok_stream *s, const uint8_t *p, size_t n, struct wbuf *out) {
    for (size_t i = 0; i < n;) {
        size_t k = s->n_held ? 0 : utf8_valid_prefix(p + i, n - i);
        if (k)
            put(s, p + i, k, out);
        i += k;
        if (i < n)
            put_byte(s, p[i++], out);
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
            put_bytes(s, p, n, out);
        return;
    }
    if (type == PIECE_UNKNOWN) {
        put_bytes(s, (const uint8_t *)t->spm.unk_surface, strlen(t->spm.unk_surface), out);
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
        put_bytes(s, p, k, out);
        if (q) {
            put(s, " ", 1, out);
            k += META_LEN;
        }
        p += k;
        n -= k;
    }
}

/* A piece in which marks stand for spaces. Of the first piece every mark goes, also one inside it: so does the library.
 */
static void put_metaspace(struct tok_stream *s, const uint8_t *p, size_t n, struct wbuf *out) {
    const struct norm_step *r = &s->t->hf.decode_replace.step[0];
    bool first = !s->started;
    s->started = true;
    while (n) {
        const uint8_t *q = memmem(p, n, r->from, r->n_from);
        size_t k = q ? (size_t)(q - p) : n;
        put_bytes(s, p, k, out);
        if (q && !first)
            put(s, " ", 1, out);
        k += q ? r->n_from : 0;
        p += k;
        n -= k;
    }
}

static void put_hf(struct tok_stream *s, uint32_t id, struct wbuf *out) {
    const struct tokenizer *t = s->t;
    const struct hf *hf = &t->hf;
    enum piece_type type = vocab_type(&t->vocab, id);
    size_t n;
    const uint8_t *p = vocab_bytes(hf->shown.n ? &hf->shown : &t->vocab, id, &n);
    if (type == PIECE_CONTROL && t->kind == KIND_TEKKEN)
        tok_stream_flush(s, out);
    if (type == PIECE_NONE || (type == PIECE_CONTROL && !s->keep_special))
        return;
    if (type == PIECE_BYTE) {
        p = vocab_bytes(&t->vocab, id, &n);
        put_byte(s, (uint8_t)byte_piece_value(p, n), out);
        return;
    }
    if (hf->decode != DECODE_BYTES)
        tok_stream_flush(s, out);
    if (hf->decode == DECODE_METASPACE) {
        put_metaspace(s, p, n, out);
        return;
    }
    if (hf->decode == DECODE_JOINED && s->started)
        put(s, " ", 1, out);
    put_bytes(s, p, n, out);
}

void tok_stream_put(struct tok_stream *s, uint32_t id, struct wbuf *out) {
    if (id >= s->t->vocab.n)
        return;
    if (s->t->kind == KIND_SPM)
        put_spm(s, id, out);
    else
        put_hf(s, id, out);
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
