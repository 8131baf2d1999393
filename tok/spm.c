/* SentencePiece BPE: normalisation, segmentation and what a model's pieces imply. The format is read in spm_proto.c. */
#include "tok/tok_impl.h"
#include "tok/utf8.h"

#include <stdlib.h>
#include <string.h>

static bool is_meta(const uint8_t *p, size_t n) {
    return n >= META_LEN && memcmp(p, META, META_LEN) == 0;
}

int byte_piece_value(const uint8_t *p, size_t n) {
    static const char hex[] = "0123456789ABCDEF";
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>')
        return -1;
    const char *hi = memchr(hex, p[3], 16), *lo = memchr(hex, p[4], 16);
    return hi && lo ? (int)(16 * (hi - hex) + (lo - hex)) : -1;
}

int spm_add_piece(struct tokenizer *t, const uint8_t *p, size_t n, enum piece_type type, float score, struct err *e) {
    uint32_t id = t->vocab.n;
    if (vocab_set(&t->vocab, id, p, n, type, e) != 0)
        return -1;
    if (t->vocab.cap > t->cap_rank) {
        uint32_t *r = realloc(t->bpe.rank, t->vocab.cap * sizeof *r);
        if (!r)
            return err_set(e, ERR_MEMORY, "out of memory for %u scores", t->vocab.cap);
        t->bpe.rank = r;
        t->cap_rank = t->vocab.cap;
    }
    t->bpe.rank[id] = bpe_rank_of_score(score);
    switch (type) {
    case PIECE_UNKNOWN:
        if (t->unk >= 0)
            return err_set(e, ERR_MODEL, "pieces %d and %u are both the unknown piece", t->unk, id);
        t->unk = (int)id;
        return tok_add_token(t, &(struct added){.id = id, .special = true}, p, n, e);
    case PIECE_CONTROL:
        return tok_add_token(t, &(struct added){.id = id, .special = true}, p, n, e);
    case PIECE_USER:
        return n ? strset_add(&t->spm.user, p, n, id, e) : 0;
    case PIECE_BYTE: {
        int b = byte_piece_value(p, n);
        if (b < 0)
            return err_set(e, ERR_MODEL, "byte piece %u is not of the form <0x0A>", id);
        t->byte_id[b] = id;
        return 0;
    }
    default:
        return 0;
    }
}

int spm_finish(struct tokenizer *t, struct err *e) {
    struct spm *s = &t->spm;
    struct vocab *v = &t->vocab;
    if (vocab_index(v, 1u << PIECE_NORMAL | 1u << PIECE_USER | 1u << PIECE_UNUSED, e) != 0)
        return -1;
    t->bpe.vocab = v;
    strset_seal(&t->special);
    strset_seal(&s->user);
    if (t->unk < 0 && !s->byte_fallback)
        return err_set(e, ERR_MODEL, "the vocabulary has no unknown piece");
    for (int b = 0; s->byte_fallback && b < 256; b++)
        if (t->byte_id[b] == NO_ID)
            return err_set(e, ERR_MODEL, "byte_fallback is on but the piece <0x%02X> is missing", (unsigned)b);
    s->cut_at_meta = true;
    for (uint32_t id = 0; id < v->n && s->cut_at_meta; id++) {
        size_t n;
        const uint8_t *p = vocab_bytes(v, id, &n);
        if (vocab_type(v, id) != PIECE_NORMAL && vocab_type(v, id) != PIECE_UNUSED)
            continue;
        for (size_t i = 1; i < n; i++)
            if (is_meta(p + i, n - i) && !(i >= META_LEN && is_meta(p + i - META_LEN, META_LEN)))
                s->cut_at_meta = false;
    }
    return 0;
}

void spm_free(struct spm *s) {
    strset_free(&s->user);
    free(s->units);
    free(s->strings);
    free(s->unk_surface);
    *s = (struct spm){0};
}

/* The longest rule of the charsmap that the text starts with: its length, and what it is replaced with. The walk over
 * the double array is that of Darts-clone's commonPrefixSearch; every index is checked, as the file is not trusted. */
static size_t charsmap_match(const struct spm *s, const uint8_t *p, size_t n, const char **to) {
    enum { MAX_RULE = 256 };
    size_t best = 0;
    if (!s->units)
        return 0;
#define OFFSET(u) (((u) >> 10) << (((u) & (1u << 9)) >> 6))
    size_t node = OFFSET(s->units[0]);
    for (size_t i = 0; i < n && i < MAX_RULE; i++) {
        node ^= p[i];
        if (node >= s->n_units)
            break;
        uint32_t unit = s->units[node];
        if ((unit & 0x800000ffu) != p[i])
            break;
        node ^= OFFSET(unit);
        if (node >= s->n_units)
            break;
        uint32_t value = s->units[node] & 0x7fffffffu;
        if ((unit >> 8 & 1) && value < s->n_strings) {
            best = i + 1;
            *to = s->strings + value;
        }
    }
#undef OFFSET
    return best;
}

/* One step of normalisation: takes the result's n bytes from *q, returns how many input bytes these stand for. */
static size_t normalize_prefix(const struct spm *s, const uint8_t *p, size_t n, const uint8_t **q, size_t *n_q) {
    uint32_t id;
    const char *to = NULL;
    size_t k = strset_match(&s->user, p, n, &id);
    if (k == 0 && (k = charsmap_match(s, p, n, &to)) != 0) {
        *q = (const uint8_t *)to;
        *n_q = strlen(to);
        return k;
    }
    if (k == 0 && (k = utf8_char(p, n, NULL)) == 0) {
        *q = (const uint8_t *)"\xef\xbf\xbd";
        *n_q = 3;
        return 1;
    }
    *q = p;
    *n_q = k;
    return k;
}

int spm_normalize(const struct spm *s, const uint8_t *p, size_t n, bool prefix, struct wbuf *out, struct err *e) {
    const char *space = s->escape ? META : " ";
    const uint8_t *q;
    size_t i = 0, n_q, n_space = strlen(space), start = out->n;
    out->max = start + norm_bound(n);
    if (s->remove_extra && prefix) {
        while (i < n) {
            size_t k = normalize_prefix(s, p + i, n - i, &q, &n_q);
            if (n_q != 1 || q[0] != ' ')
                break;
            i += k;
        }
    }
    if (i == n)
        return 0;
    if (s->dummy_prefix && prefix && !s->suffix)
        wbuf_put(out, space, n_space);
    bool space_before = s->remove_extra && prefix;
    while (i < n) {
        i += normalize_prefix(s, p + i, n - i, &q, &n_q);
        while (space_before && n_q && q[0] == ' ') {
            q++;
            n_q--;
        }
        if (n_q)
            space_before = s->remove_extra && q[n_q - 1] == ' ';
        for (size_t j = 0; j < n_q; j++) {
            if (q[j] == ' ')
                wbuf_put(out, space, n_space);
            else
                wbuf_u8(out, q[j]);
        }
    }
    while (s->remove_extra && out->n - start >= n_space && memcmp(out->p + out->n - n_space, space, n_space) == 0)
        out->n -= n_space;
    if (s->dummy_prefix && prefix && s->suffix)
        wbuf_put(out, space, n_space);
    if (out->bad)
        return err_set(e, ERR_MEMORY, "the text grows too large when it is normalised (%zu bytes before)", n);
    return 0;
}

static void emit_unknown(struct enc *c, const uint8_t *p, size_t n) {
    if (c->t->spm.byte_fallback) {
        for (size_t i = 0; i < n; i++)
            ids_push(c->out, c->t->byte_id[p[i]]);
    } else if (!c->unk_last) {
        ids_push(c->out, (uint32_t)c->t->unk);
        c->unk_last = true;
    }
}

/* A piece that came out of the merges. One that may not be used is taken apart again, as it was put together. */
static void emit(struct enc *c, const uint8_t *p, uint32_t n, uint32_t id) {
    uint32_t left = 0;
    if (id == NO_ID) {
        emit_unknown(c, p, n);
        return;
    }
    if (vocab_type(&c->t->vocab, id) == PIECE_UNUSED && (left = bpe_left_half(&c->w, id)) != 0 && left < n) {
        emit(c, p, left, vocab_find(&c->t->vocab, p, left));
        emit(c, p + left, n - left, vocab_find(&c->t->vocab, p + left, n - left));
        return;
    }
    ids_push(c->out, id);
    c->unk_last = false;
}

static int flush(struct enc *c, const uint8_t *text, struct err *e) {
    struct bpe_work *w = &c->w;
    if (bpe_merge(&c->t->bpe, w, text) != 0)
        return err_set(e, ERR_MEMORY, "out of memory tokenizing");
    for (uint32_t i = w->n ? 0 : BPE_END; i != BPE_END; i = w->s[i].next)
        emit(c, text + w->s[i].off, w->s[i].len, w->s[i].id);
    w->n = 0;
    return 0;
}

/* Text without any control piece in it. */
static int encode_text(struct enc *c, const uint8_t *p, size_t n, bool prefix, struct err *e) {
    const struct tokenizer *t = c->t;
    struct wbuf text = {0};
    bool meta_before = true;
    int rc = spm_normalize(&t->spm, p, n, prefix, &text, e);
    if (rc != 0)
        goto out;
    for (size_t i = 0, k; i < text.n; i += k) {
        uint32_t id;
        bool user = (k = strset_match(&t->spm.user, text.p + i, text.n - i, &id)) != 0;
        bool meta = is_meta(text.p + i, text.n - i);
        if (!user) {
            k = utf8_char(text.p + i, text.n - i, NULL);
            if (k == 0)
                k = 1; /* a user-defined piece that is no UTF-8 can leave that behind */
            id = vocab_find(&t->vocab, text.p + i, k);
        }
        if ((meta && !meta_before && t->spm.cut_at_meta) || user) {
            rc = flush(c, text.p, e);
            if (rc != 0)
                goto out;
        }
        bpe_push(&c->w, id, (uint32_t)i, (uint32_t)k, user);
        meta_before = meta;
    }
    rc = flush(c, text.p, e);
out:
    wbuf_free(&text);
    return rc;
}

int spm_encode(struct enc *c, const uint8_t *p, size_t n, struct err *e) {
    const struct tokenizer *t = c->t;
    bool prefix = !(c->flags & TOK_CONTINUE);
    size_t from = 0;
    for (size_t i = 0; i < n && (c->flags & TOK_SPECIAL);) {
        uint32_t id;
        size_t k = strset_match(&t->special, p + i, enc_room(c, i, n), &id);
        if (k == 0) {
            i++;
            continue;
        }
        if (from < i && encode_text(c, p + from, i - from, prefix, e) != 0)
            return -1;
        ids_push(c->out, id);
        c->unk_last = false;
        prefix = !t->spm.prefix_once;
        from = i += k;
    }
    return from < n ? encode_text(c, p + from, n - from, prefix, e) : 0;
}
