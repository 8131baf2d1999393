/* The pipeline of tokenizer.json at work: added tokens, normalizer, words, merges. */
#include "tok/tok_impl.h"
#include "tok/utf8.h"

#include <stdlib.h>
#include <string.h>

/* The order of the steps, and every odd rule of scan_next, is that of the `tokenizers` library's added_vocabulary.rs.
 */
struct scan {
    const struct hf *hf;
    const struct strset *set;
    struct enc *c;
    bool in_raw; /* offsets are those of the caller's text, which c->plain speaks of */
    const uint8_t *p;
    size_t n;
    size_t i;    /* where the next match is looked for */
    size_t done; /* end of what has been given out */
};

static bool space_at(const uint8_t *p, size_t n, size_t *k) {
    uint32_t cp;
    return n && (*k = utf8_char(p, n, &cp)) != 0 && unicode_is_space(cp);
}

/* Length of the last character of n bytes, 0 when there is none that is valid. */
static size_t last_char(const uint8_t *p, size_t n, uint32_t *cp) {
    for (size_t k = 1; k <= 4 && k <= n; k++)
        if ((p[n - k] & 0xc0) != 0x80)
            return utf8_char(p + n - k, k, cp) == k ? k : 0;
    return 0;
}

static bool is_single_word(const struct scan *s, size_t start, size_t stop) {
    uint32_t cp;
    if (last_char(s->p, start, &cp) && unicode_is_word(cp))
        return false;
    return !(stop < s->n && utf8_char(s->p + stop, s->n - stop, &cp) && unicode_is_word(cp));
}

/* What is matched at i: the length, 0 for none, and which token. *skip: bytes to go on by when it is none. */
static size_t match_at(struct scan *s, size_t i, uint32_t *token, size_t *skip) {
    struct enc *c = s->c;
    size_t k = strset_match(s->set, s->p + i, s->n - i, token);
    *skip = 1;
    if (c->n_plain == 0 || !s->in_raw) {
        bool allowed = (c->flags & TOK_SPECIAL) && c->n_plain == 0;
        if (k && s->c->t->added[*token].special && !allowed) {
            *skip = k;
            return 0;
        }
        return k;
    }
    /* A special token counts only where the text is not plain, and then a longer one that reaches into plain text must
     * not hide it. Its normalised form cannot be told from what a user typed, so it is looked for here. */
    size_t room = enc_room(c, i, s->n), k_special;
    uint32_t special;
    if (k && s->c->t->added[*token].special && k > room)
        k = strset_match(s->set, s->p + i, room, token);
    k_special = room ? strset_match(&s->hf->special_raw, s->p + i, room, &special) : 0;
    if (k_special > k) {
        k = k_special;
        *token = special;
    }
    return k && s->c->t->added[*token].special && room == 0 ? 0 : k;
}

/* The next added token: true with the text before it in *from, *to, and which it is. False: text to the end. */
static bool scan_next(struct scan *s, size_t *from, size_t *to, uint32_t *token) {
    while (s->i < s->n) {
        size_t skip, start = s->i, k = match_at(s, start, token, &skip);
        if (k == 0) {
            s->i += skip;
            continue;
        }
        const struct added *a = &s->c->t->added[*token];
        size_t stop = s->i = start + k, w;
        if (a->single_word && !is_single_word(s, start, stop))
            continue;
        uint32_t cp;
        while (a->lstrip && start > s->done && (w = last_char(s->p, start, &cp)) && unicode_is_space(cp))
            start -= w;
        while (a->rstrip && space_at(s->p + stop, s->n - stop, &w))
            stop += w;
        *from = s->done;
        *to = start > s->done ? start : s->done;
        s->done = stop;
        return true;
    }
    *from = s->done;
    *to = s->n;
    return false;
}

static int flush(struct enc *c, const uint8_t *text, struct err *e) {
    struct bpe_work *w = &c->w;
    if (bpe_merge(&c->t->bpe, w, text) != 0)
        return err_set(e, ERR_MEMORY, "out of memory tokenizing");
    for (uint32_t i = w->n ? 0 : BPE_END; i != BPE_END; i = w->s[i].next)
        ids_push(c->out, w->s[i].id);
    w->n = 0;
    return 0;
}

/* Pushes the pieces of one character (or byte, or stretch that is no UTF-8) that is no piece itself. *unk: an unknown
 * piece is pending, which further unknown characters may join. */
static void push_unknown(struct enc *c, const uint8_t *p, size_t n, uint32_t off, bool *unk) {
    const struct tokenizer *t = c->t;
    size_t have = 0;
    while (t->hf.byte_fallback && have < n && t->byte_id[p[have]] != NO_ID)
        have++;
    if (t->hf.byte_fallback && have == n) {
        for (size_t i = 0; i < n; i++)
            bpe_push(&c->w, t->byte_id[p[i]], off + (uint32_t)i, 1, false);
        return;
    }
    if (t->unk < 0)
        return; /* the library drops it too */
    if (*unk && !t->hf.fuse_unk)
        bpe_push(&c->w, (uint32_t)t->unk, off, 0, false);
    *unk = true;
}

static int encode_word(struct enc *c, const uint8_t *p, size_t n, struct err *e) {
    const struct tokenizer *t = c->t;
    bool unk = false, meta_before = true;
    if (t->hf.whole_words) {
        uint32_t id = vocab_find(&t->vocab, p, n);
        if (id != NO_ID) {
            ids_push(c->out, id);
            return 0;
        }
    }
    for (size_t i = 0, k; i < n; i += k) {
        uint32_t id;
        bool meta = false;
        if (t->hf.byte_level) {
            k = 1;
            id = t->byte_id[p[i]];
        } else {
            k = utf8_char(p + i, n - i, NULL);
            meta = k == META_LEN && memcmp(p + i, META, META_LEN) == 0;
            id = k ? vocab_find(&t->vocab, p + i, k) : NO_ID;
            k += k == 0;
        }
        if (id == NO_ID) {
            push_unknown(c, p + i, k, (uint32_t)i, &unk);
        } else {
            if (unk)
                bpe_push(&c->w, (uint32_t)t->unk, (uint32_t)i, 0, false);
            unk = false;
            if (meta && !meta_before && t->hf.cut_at_meta && flush(c, p, e) != 0)
                return -1;
            bpe_push(&c->w, id, (uint32_t)i, (uint32_t)k, false);
        }
        meta_before = meta;
    }
    if (unk)
        bpe_push(&c->w, (uint32_t)t->unk, (uint32_t)n, 0, false);
    return flush(c, p, e);
}

/* Text without any added token in it, already normalised. first: it starts the whole text. */
static int encode_text(struct enc *c, const uint8_t *p, size_t n, bool first, bool prefix, struct err *e) {
    const struct hf *hf = &c->t->hf;
    struct wbuf own = {.max = NORM_MAX_TEXT};
    int rc = -1;
    if (n == 0)
        return 0;
    if (hf->metaspace || hf->prefix != PREFIX_NEVER) {
        const char *mark = hf->metaspace ? hf->meta : " ";
        size_t n_mark = strlen(mark);
        bool marked = hf->metaspace && p[0] == ' ';
        marked = marked || (n >= n_mark && memcmp(p, mark, n_mark) == 0);
        if (prefix && !marked && (hf->prefix == PREFIX_ALWAYS || (hf->prefix == PREFIX_FIRST && first)))
            wbuf_str(&own, mark);
        for (size_t i = 0; i < n; i++) {
            if (p[i] == ' ' && hf->metaspace)
                wbuf_put(&own, mark, n_mark);
            else
                wbuf_u8(&own, p[i]);
        }
        if (own.bad) {
            err_set(e, ERR_MEMORY, "out of memory tokenizing");
            goto out;
        }
        p = own.p;
        n = own.n;
    }
    if (pretok_run(&hf->pretok, c->regex, p, n, &c->words, &c->words_tmp, e) != 0)
        goto out;
    for (size_t i = 0; i < c->words.n; i++)
        if (encode_word(c, p + c->words.p[i].from, c->words.p[i].to - c->words.p[i].from, e) != 0)
            goto out;
    rc = 0;
out:
    wbuf_free(&own);
    return rc;
}

/* A stretch of the caller's text between added tokens. */
static int encode_segment(struct enc *c, const uint8_t *p, size_t n, bool first, bool prefix, struct err *e) {
    const struct hf *hf = &c->t->hf;
    struct wbuf own = {0};
    int rc = -1;
    if (n == 0)
        return 0;
    if (hf->norm.n) {
        if (norm_run(&hf->norm, c->regex, p, n, prefix, &own, e) != 0)
            goto out;
        p = own.p;
        n = own.n;
    }
    if (n == 0) { /* all of it was normalised away */
        rc = 0;
        goto out;
    }
    struct scan s = {.hf = hf, .set = &hf->after, .c = c, .p = p, .n = n};
    size_t from, to;
    uint32_t token;
    while (scan_next(&s, &from, &to, &token)) {
        if (encode_text(c, p + from, to - from, first && from == 0, prefix, e) != 0)
            goto out;
        ids_push(c->out, c->t->added[token].id);
        prefix = true;
    }
    rc = encode_text(c, p + from, to - from, first && from == 0, prefix, e);
out:
    wbuf_free(&own);
    return rc;
}

int hf_encode(struct enc *c, const uint8_t *p, size_t n, struct err *e) {
    const struct hf *hf = &c->t->hf;
    bool prefix = !(c->flags & TOK_CONTINUE);
    struct scan s = {.hf = hf, .set = &hf->raw, .c = c, .p = p, .n = n, .in_raw = true};
    size_t from, to;
    uint32_t token;
    if (n == 0)
        return 0;
    c->regex = regex_scratch_new(e);
    if (!c->regex)
        return -1;
    while (scan_next(&s, &from, &to, &token)) {
        if (encode_segment(c, p + from, to - from, from == 0, prefix, e) != 0)
            return -1;
        ids_push(c->out, c->t->added[token].id);
        prefix = true;
    }
    return encode_segment(c, p + from, to - from, from == 0, prefix, e);
}
