#include "tok/hf_json.h"

#include "tok/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int hf_finish_added(struct tokenizer *t, struct err *e) {
    struct hf *hf = &t->hf;
    struct regex_scratch *scratch = NULL;
    struct wbuf w = {0};
    int rc = -1;
    if (hf->norm.n && !(scratch = regex_scratch_new(e)))
        return -1;
    for (uint32_t i = 0; i < t->n_added; i++) {
        const struct added *a = &t->added[i];
        if (!a->normalized || hf->norm.n == 0) {
            if (strset_add(a->normalized ? &hf->after : &hf->raw, a->text, a->n_text, i, e) != 0)
                goto out;
        } else {
            wbuf_clear(&w);
            if (norm_run(&hf->norm, scratch, (const uint8_t *)a->text, a->n_text, true, &w, e) != 0)
                goto out;
            if (w.n && strset_add(&hf->after, w.p, w.n, i, e) != 0)
                goto out;
        }
        if (a->normalized && a->special && strset_add(&hf->special_raw, a->text, a->n_text, i, e) != 0)
            goto out;
    }
    strset_seal(&t->special);
    strset_seal(&hf->raw);
    strset_seal(&hf->after);
    strset_seal(&hf->special_raw);
    rc = 0;
out:
    wbuf_free(&w);
    regex_scratch_free(scratch);
    return rc;
}

/* GPT-2's printable stand-ins: the byte that a character stands for, or -1. */
static int unmapped_byte(uint32_t cp) {
    if ((cp >= 0x21 && cp <= 0x7e) || (cp >= 0xa1 && cp <= 0xac) || (cp >= 0xae && cp <= 0xff))
        return (int)cp;
    if (cp >= 0x100 && cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp >= 0x121 && cp <= 0x142)
        return (int)(cp - 0x121 + 0x7f);
    return cp == 0x143 ? 0xad : -1;
}

/* Replaces printable stand-ins by their bytes, if all of it is such. */
static bool unmap(struct wbuf *w) {
    uint8_t buf[VOCAB_MAX_PIECE];
    size_t n = 0;
    for (size_t i = 0, k; i < w->n; i += k) {
        uint32_t cp = 0;
        k = utf8_char(w->p + i, w->n - i, &cp);
        int b = k ? unmapped_byte(cp) : -1;
        if (b < 0 || n == sizeof buf)
            return false;
        buf[n++] = (uint8_t)b;
    }
    wbuf_clear(w);
    wbuf_put(w, buf, n);
    return true;
}

int hf_unmap_bytes(struct tokenizer *t, struct err *e) {
    struct vocab *v = &t->vocab;
    struct wbuf w = {0};
    int rc = 0;
    for (uint32_t id = 0; id < v->n && rc == 0; id++) {
        size_t n;
        const uint8_t *p = vocab_bytes(v, id, &n);
        wbuf_clear(&w);
        wbuf_put(&w, p, n);
        if (unmap(&w)) {
            if (w.n < n)
                rc = vocab_replace(v, id, w.p, w.n, e);
        } else if (vocab_type(v, id) == PIECE_NORMAL) {
            v->piece[id].type = PIECE_UNUSED; /* not all of it stands for bytes: no text is ever this piece */
        }
    }
    if (w.bad)
        rc = err_set(e, ERR_MEMORY, "out of memory for a vocabulary");
    wbuf_free(&w);
    return rc;
}

static void note_merge(struct tokenizer *t, uint32_t left, uint32_t right) {
    size_t n_l, n_r;
    const uint8_t *l = vocab_bytes(&t->vocab, left, &n_l), *r = vocab_bytes(&t->vocab, right, &n_r);
    if (n_r >= META_LEN && memcmp(r, META, META_LEN) == 0 &&
        !(n_l >= META_LEN && memcmp(l + n_l - META_LEN, META, META_LEN) == 0))
        t->hf.cut_at_meta = false;
}

static int read_vocab(struct tokenizer *t, yyjson_val *model, struct err *e) {
    yyjson_val *vocab = yyjson_obj_get(model, "vocab"), *key, *val;
    size_t i, max;
    if (!yyjson_is_obj(vocab) || yyjson_obj_size(vocab) == 0)
        return err_set(e, ERR_MODEL, "the model has no vocab object");
    /* there may be gaps, but one entry must not make a table of millions */
    uint64_t max_id = 2 * yyjson_obj_size(vocab) + 65536;
    yyjson_obj_foreach(vocab, i, max, key, val) {
        if (!yyjson_is_uint(val) || yyjson_get_uint(val) >= max_id)
            return err_set(e, ERR_MODEL, "the vocab gives %.40s a wrong id", yyjson_get_str(key));
        if (vocab_set(&t->vocab, (uint32_t)yyjson_get_uint(val), yyjson_get_str(key), yyjson_get_len(key), PIECE_NORMAL,
                      e) != 0)
            return -1;
    }
    return vocab_index(&t->vocab, 1u << PIECE_NORMAL, e);
}

/* The two sides of a merge: "a b", or ["a", "b"]. */
static int merge_sides(yyjson_val *m, const char **l, size_t *n_l, const char **r, size_t *n_r) {
    if (yyjson_is_arr(m) && yyjson_arr_size(m) == 2) {
        yyjson_val *a = yyjson_arr_get(m, 0), *b = yyjson_arr_get(m, 1);
        *l = yyjson_get_str(a);
        *r = yyjson_get_str(b);
        *n_l = yyjson_get_len(a);
        *n_r = yyjson_get_len(b);
        return *l && *r ? 0 : -1;
    }
    *l = yyjson_get_str(m);
    const char *end = *l ? *l + yyjson_get_len(m) : NULL;
    const char *space = *l ? memchr(*l, ' ', yyjson_get_len(m)) : NULL;
    if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1)))
        return -1;
    *n_l = (size_t)(space - *l);
    *r = space + 1;
    *n_r = (size_t)(end - *r);
    return 0;
}

int hf_add_merge(struct tokenizer *t, const char *l, size_t n_l, const char *r, size_t n_r, uint32_t rank,
                 struct err *e) {
    uint8_t buf[VOCAB_MAX_PIECE];
    const struct vocab *v = &t->vocab;
    uint32_t left = vocab_find(v, l, n_l), right = vocab_find(v, r, n_r), into = NO_ID;
    if (left != NO_ID && right != NO_ID && n_l + n_r <= sizeof buf) {
        memcpy(buf, l, n_l);
        memcpy(buf + n_l, r, n_r);
        into = vocab_find(v, buf, n_l + n_r);
    }
    if (into == NO_ID)
        return err_set(e, ERR_MODEL, "merge %u (%.*s %.*s) is not made of pieces of the vocabulary", rank,
                       (int)(n_l < 40 ? n_l : 40), l, (int)(n_r < 40 ? n_r : 40), r);
    bpe_add(&t->bpe, left, right, rank, into);
    note_merge(t, left, right);
    return 0;
}

static int read_merges(struct tokenizer *t, yyjson_val *model, struct err *e) {
    yyjson_val *merges = yyjson_obj_get(model, "merges"), *m;
    size_t i, max, n_l, n_r;
    const char *l, *r;
    if (!yyjson_is_arr(merges) || yyjson_arr_size(merges) > VOCAB_MAX_IDS)
        return err_set(e, ERR_MODEL, "the model has no merges list of a usable size");
    if (bpe_init_pairs(&t->bpe, (uint32_t)yyjson_arr_size(merges), e) != 0)
        return -1;
    yyjson_arr_foreach(merges, i, max, m) {
        if (merge_sides(m, &l, &n_l, &r, &n_r) != 0)
            return err_set(e, ERR_MODEL, "merge %zu is neither \"a b\" nor [\"a\", \"b\"]", i);
        if (hf_add_merge(t, l, n_l, r, n_r, (uint32_t)i, e) != 0)
            return -1;
    }
    return 0;
}

static int read_model(struct tokenizer *t, yyjson_val *model, struct err *e) {
    size_t n;
    const char *type = json_str(model, "type", &n), *unk = json_str(model, "unk_token", &n);
    if (!yyjson_is_obj(model) || (type && strcmp(type, "BPE") != 0))
        return err_set(e, ERR_MODEL, "the model %.40s is not supported, only BPE", type ? type : "(none)");
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (int i = 0; i < 2; i++) {
        size_t n_affix;
        if (json_str(model, affixes[i], &n_affix) && n_affix)
            return err_set(e, ERR_MODEL, "the model's %s is not supported", affixes[i]);
    }
    if (yyjson_get_num(yyjson_obj_get(model, "dropout")) != 0)
        return err_set(e, ERR_MODEL, "the model's dropout is not supported: it makes encoding random");
    t->hf.byte_fallback = json_bool(model, "byte_fallback", false);
    t->hf.fuse_unk = json_bool(model, "fuse_unk", false);
    t->hf.whole_words = json_bool(model, "ignore_merges", false);
    t->hf.cut_at_meta = true;
    if (read_vocab(t, model, e) != 0 || read_merges(t, model, e) != 0)
        return -1;
    if (unk) {
        uint32_t id = vocab_find(&t->vocab, unk, n);
        if (id == NO_ID)
            return err_set(e, ERR_MODEL, "the unk_token %.40s is not in the vocabulary", unk);
        t->unk = (int)id;
    }
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        t->byte_id[b] = vocab_find(&t->vocab, name, 6);
    }
    return 0;
}

static int read_added(struct tokenizer *t, yyjson_val *list, struct err *e) {
    yyjson_val *v;
    size_t i, max, n;
    uint64_t max_id = t->vocab.n + 2 * yyjson_arr_size(list) + 65536;
    yyjson_arr_foreach(list, i, max, v) {
        const char *text = json_str(v, "content", &n);
        yyjson_val *id = yyjson_obj_get(v, "id");
        if (!text || !yyjson_is_uint(id) || yyjson_get_uint(id) >= max_id)
            return err_set(e, ERR_MODEL, "added token %zu lacks its content or id", i);
        if (n == 0)
            continue;
        struct added a = {.id = vocab_find(&t->vocab, text, n), .special = json_bool(v, "special", false)};
        a.normalized = json_bool(v, "normalized", !a.special);
        a.single_word = json_bool(v, "single_word", false);
        a.lstrip = json_bool(v, "lstrip", false);
        a.rstrip = json_bool(v, "rstrip", false);
        if (a.id == NO_ID) {
            a.id = (uint32_t)yyjson_get_uint(id);
            if (vocab_set(&t->vocab, a.id, text, n, a.special ? PIECE_CONTROL : PIECE_USER, e) != 0)
                return err_wrap(e, "added token %.60s", text);
        } else if (a.special) {
            t->vocab.piece[a.id].type = PIECE_CONTROL;
        }
        if (tok_add_token(t, &a, text, n, e) != 0)
            return -1;
    }
    return 0;
}

/* What piece id decodes to, into w. */
static int show(const struct tokenizer *t, struct regex_scratch *scratch, const uint8_t *p, size_t n, struct wbuf *w,
                struct err *e) {
    wbuf_clear(w);
    if (t->hf.decode == DECODE_TEXT)
        return norm_run(&t->hf.decode_replace, scratch, p, n, true, w, e);
    wbuf_put(w, p, n);
    return 0;
}

/* An added token that is looked for in its normalised form is decoded to that form. */
static int show_added(struct tokenizer *t, struct regex_scratch *scratch, struct wbuf *w, struct err *e) {
    struct wbuf form = {0};
    int rc = 0;
    for (uint32_t i = 0; i < t->n_added && rc == 0; i++) {
        const struct added *a = &t->added[i];
        wbuf_clear(&form);
        if (!a->normalized)
            continue;
        rc = norm_run(&t->hf.norm, scratch, (const uint8_t *)a->text, a->n_text, true, &form, e);
        if (rc == 0 && (form.n != a->n_text || memcmp(form.p, a->text, form.n) != 0)) {
            if (t->hf.byte_level)
                unmap(&form);
            rc = show(t, scratch, form.p, form.n, w, e);
            if (rc == 0)
                rc = vocab_replace(&t->hf.shown, a->id, w->p, w->n, e);
        }
    }
    wbuf_free(&form);
    return rc;
}

/* What each piece decodes to is fixed here once; pieces of the form <0x0A> are marked as bytes. */
static int finish_decoder(struct tokenizer *t, struct err *e) {
    struct hf *hf = &t->hf;
    struct wbuf w = {0};
    struct regex_scratch *scratch = regex_scratch_new(e);
    int rc = scratch ? 0 : -1;
    for (uint32_t id = 0; id < t->vocab.n && rc == 0; id++) {
        size_t n;
        const uint8_t *p = vocab_bytes(&t->vocab, id, &n);
        enum piece_type type = vocab_type(&t->vocab, id);
        if (type == PIECE_NONE)
            continue;
        if (hf->decode_fallback && byte_piece_value(p, n) >= 0 && type != PIECE_CONTROL)
            t->vocab.piece[id].type = PIECE_BYTE;
        if (hf->norm.n == 0 && hf->decode_replace.n == 0)
            continue;
        rc = show(t, scratch, p, n, &w, e);
        if (rc == 0)
            rc = vocab_set(&hf->shown, id, w.p, w.n, type, e);
    }
    if (rc == 0 && hf->norm.n)
        rc = show_added(t, scratch, &w, e);
    wbuf_free(&w);
    regex_scratch_free(scratch);
    return rc;
}

/* Without tokenizer_config.json: the beginning is what the post-processor puts in front, the end one of the usual. */
static void guess_ends(struct tokenizer *t) {
    static const char *const ends[] = {"</s>", "<|end_of_text|>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>"};
    t->bos = t->n_front ? (int)t->front[0] : -1;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0] && t->eos < 0; i++)
        t->eos = tokenizer_special(t, ends[i], strlen(ends[i]));
}

static int read_root(struct tokenizer *t, yyjson_val *root, struct err *e) {
    if (!yyjson_is_obj(root) || !yyjson_obj_get(root, "model"))
        return err_set(e, ERR_MODEL, "there is no \"model\" in it");
    if (read_model(t, yyjson_obj_get(root, "model"), e) != 0 ||
        read_added(t, yyjson_obj_get(root, "added_tokens"), e) != 0 ||
        hf_read_normalizer(t, yyjson_obj_get(root, "normalizer"), e) != 0 ||
        hf_read_pre_tokenizer(t, yyjson_obj_get(root, "pre_tokenizer"), e) != 0 || hf_finish_added(t, e) != 0)
        return -1;
    if (t->hf.byte_level) {
        t->kind = KIND_BYTE;
        if (t->hf.byte_fallback)
            return err_set(e, ERR_MODEL, "byte_fallback together with the pre_tokenizer ByteLevel is not supported");
        if (hf_unmap_bytes(t, e) != 0)
            return -1;
    }
    if (hf_read_decoder(t, yyjson_obj_get(root, "decoder"), e) != 0 || finish_decoder(t, e) != 0 ||
        hf_read_post_processor(t, yyjson_obj_get(root, "post_processor"), e) != 0)
        return -1;
    if (vocab_index(&t->vocab, 1u << PIECE_NORMAL | 1u << PIECE_BYTE, e) != 0)
        return -1;
    for (unsigned b = 0; t->hf.byte_level && b < 256; b++)
        t->byte_id[b] = vocab_find(&t->vocab, &(uint8_t){(uint8_t)b}, 1);
    guess_ends(t);
    return 0;
}

int tokenizer_parse_hf(struct tokenizer **out, const char *p, size_t n, const char *name, struct err *e) {
    yyjson_read_err why;
    int rc = -1;
    *out = NULL;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)p, n, 0, NULL, &why);
    if (!doc)
        return err_set(e, ERR_MODEL, "%s is not valid JSON (%s at byte %zu)", name, why.msg, why.pos);
    struct tokenizer *t = tok_new(KIND_METASPACE, e);
    if (t && read_root(t, yyjson_doc_get_root(doc), e) == 0) {
        *out = t;
        t = NULL;
        rc = 0;
    }
    if (rc != 0)
        err_wrap(e, "%s", name);
    tokenizer_free(t);
    yyjson_doc_free(doc);
    return rc;
}

void hf_free(struct hf *hf) {
    strset_free(&hf->raw);
    strset_free(&hf->after);
    strset_free(&hf->special_raw);
    norm_free(&hf->norm);
    norm_free(&hf->decode_replace);
    pretok_free(&hf->pretok);
    free(hf->meta);
    vocab_free(&hf->shown);
}
