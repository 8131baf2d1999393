/* SentencePiece .model files: a ModelProto message, read by a small bounded protobuf reader. */
#include "core/base/buf.h"
#include "tok/tok_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

struct field {
    uint32_t number, wire;
    uint64_t v;       /* varint and fixed values */
    const uint8_t *p; /* bytes */
    size_t n;
};

static uint64_t varint(struct rbuf *r) {
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t b = rbuf_u8(r);
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
    r->bad = true;
    return 0;
}

/* The next field of a message: 1, 0 at its end, or 0 with r->bad. */
static int next_field(struct rbuf *r, struct field *f) {
    if (r->bad || rbuf_left(r) == 0)
        return 0;
    uint64_t key = varint(r);
    *f = (struct field){.number = (uint32_t)(key >> 3), .wire = key & 7};
    switch (f->wire) {
    case WIRE_VARINT:
        f->v = varint(r);
        break;
    case WIRE_FIXED64:
        f->v = rbuf_u64(r);
        break;
    case WIRE_FIXED32:
        f->v = rbuf_u32(r);
        break;
    case WIRE_BYTES: {
        uint64_t n = varint(r);
        if (n > rbuf_left(r))
            r->bad = true;
        f->n = r->bad ? 0 : (size_t)n;
        f->p = rbuf_bytes(r, f->n);
        break;
    }
    default:
        r->bad = true;
    }
    return !r->bad && key >> 3 <= UINT32_MAX;
}

struct text {
    const uint8_t *p;
    size_t n;
};

struct proto {
    const char *name;
    struct tokenizer *t;
    uint64_t model_type;
    struct text charsmap, norm_name, denorm_charsmap, bos, eos, unk_surface;
};

static struct text text_of(const struct field *f) {
    return (struct text){f->p, f->n};
}

static int read_piece(struct proto *m, const struct field *whole, struct err *e) {
    struct rbuf r = rbuf_of(whole->p, whole->n);
    struct field f;
    struct text text = {0};
    uint64_t type = PIECE_NORMAL;
    float score = 0;
    while (next_field(&r, &f)) {
        if (f.number == 1 && f.wire == WIRE_BYTES)
            text = text_of(&f);
        else if (f.number == 2 && f.wire == WIRE_FIXED32)
            memcpy(&score, &(uint32_t){(uint32_t)f.v}, sizeof score);
        else if (f.number == 3 && f.wire == WIRE_VARINT)
            type = f.v;
    }
    uint32_t id = m->t->vocab.n;
    if (r.bad || type < PIECE_NORMAL || type > PIECE_BYTE || isnan(score))
        return err_set(e, ERR_MODEL, "%s: piece %u is damaged", m->name, id);
    if (text.n == 0 && type != PIECE_UNUSED)
        return err_set(e, ERR_MODEL, "%s: piece %u is empty", m->name, id);
    return spm_add_piece(m->t, text.p, text.n, (enum piece_type)type, score, e);
}

static int read_trainer(struct proto *m, const struct field *whole, struct err *e) {
    struct rbuf r = rbuf_of(whole->p, whole->n);
    struct field f;
    while (next_field(&r, &f)) {
        if (f.number == 3 && f.wire == WIRE_VARINT)
            m->model_type = f.v;
        else if (f.number == 24 && f.wire == WIRE_VARINT)
            m->t->spm.suffix = f.v != 0;
        else if (f.number == 35 && f.wire == WIRE_VARINT)
            m->t->spm.byte_fallback = f.v != 0;
        else if (f.number == 44 && f.wire == WIRE_BYTES)
            m->unk_surface = text_of(&f);
        else if (f.number == 46 && f.wire == WIRE_BYTES)
            m->bos = text_of(&f);
        else if (f.number == 47 && f.wire == WIRE_BYTES)
            m->eos = text_of(&f);
    }
    return r.bad ? err_set(e, ERR_MODEL, "%s: the trainer_spec is damaged", m->name) : 0;
}

static int read_normalizer(struct proto *m, const struct field *whole, struct err *e) {
    struct rbuf r = rbuf_of(whole->p, whole->n);
    struct field f;
    while (next_field(&r, &f)) {
        if (f.number == 1 && f.wire == WIRE_BYTES)
            m->norm_name = text_of(&f);
        else if (f.number == 2 && f.wire == WIRE_BYTES)
            m->charsmap = text_of(&f);
        else if (f.number == 3 && f.wire == WIRE_VARINT)
            m->t->spm.dummy_prefix = f.v != 0;
        else if (f.number == 4 && f.wire == WIRE_VARINT)
            m->t->spm.remove_extra = f.v != 0;
        else if (f.number == 5 && f.wire == WIRE_VARINT)
            m->t->spm.escape = f.v != 0;
    }
    return r.bad ? err_set(e, ERR_MODEL, "%s: the normalizer_spec is damaged", m->name) : 0;
}

static int read_denormalizer(struct proto *m, const struct field *whole, struct err *e) {
    struct rbuf r = rbuf_of(whole->p, whole->n);
    struct field f;
    while (next_field(&r, &f))
        if (f.number == 2 && f.wire == WIRE_BYTES)
            m->denorm_charsmap = text_of(&f);
    return r.bad ? err_set(e, ERR_MODEL, "%s: the denormalizer_spec is damaged", m->name) : 0;
}

static int read_model(struct proto *m, const uint8_t *p, size_t n, struct err *e) {
    struct rbuf r = rbuf_of(p, n);
    struct field f;
    while (next_field(&r, &f)) {
        int rc = 0;
        if (f.wire == WIRE_BYTES && f.number == 1)
            rc = read_piece(m, &f, e);
        else if (f.wire == WIRE_BYTES && f.number == 2)
            rc = read_trainer(m, &f, e);
        else if (f.wire == WIRE_BYTES && f.number == 3)
            rc = read_normalizer(m, &f, e);
        else if (f.wire == WIRE_BYTES && f.number == 5)
            rc = read_denormalizer(m, &f, e);
        if (rc != 0)
            return err_wrap(e, "%s", m->name);
    }
    if (r.bad || m->t->vocab.n == 0)
        return err_set(e, ERR_MODEL, "%s is not a SentencePiece model (damaged at byte %zu of %zu)", m->name, r.off, n);
    return 0;
}

/* The blob is: size of the trie in bytes, the trie, the strings. */
static int read_charsmap(struct spm *s, struct text blob, const char *name, struct err *e) {
    struct rbuf r = rbuf_of(blob.p, blob.n);
    uint32_t n_trie = rbuf_u32(&r);
    struct rbuf trie = r;
    const uint8_t *strings = rbuf_bytes(&r, n_trie);
    if (!strings || n_trie % 4 != 0 || n_trie == 0 || rbuf_left(&r) == 0 || blob.p[blob.n - 1] != 0)
        return err_set(e, ERR_MODEL, "%s: the normaliser's precompiled_charsmap is damaged", name);
    s->n_units = n_trie / 4;
    s->n_strings = rbuf_left(&r);
    s->units = malloc(s->n_units * sizeof *s->units);
    s->strings = malloc(s->n_strings);
    if (!s->units || !s->strings)
        return err_set(e, ERR_MEMORY, "%s: out of memory for the normaliser (%zu bytes)", name, blob.n);
    for (size_t i = 0; i < s->n_units; i++)
        s->units[i] = rbuf_u32(&trie);
    memcpy(s->strings, rbuf_bytes(&r, s->n_strings), s->n_strings);
    return 0;
}

static const char *model_type_name(uint64_t type) {
    static const char *const names[] = {"0", "unigram", "bpe", "word", "char"};
    return type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

static int control_id(const struct tokenizer *t, struct text piece, const char *otherwise) {
    uint32_t id =
        piece.n ? strset_find(&t->special, piece.p, piece.n) : strset_find(&t->special, otherwise, strlen(otherwise));
    return id == UINT32_MAX || vocab_type(&t->vocab, id) != PIECE_CONTROL ? -1 : (int)id;
}

int tokenizer_parse_spm(struct tokenizer **out, const uint8_t *p, size_t n, const char *name, struct err *e) {
    static const char surface[] = " \xe2\x81\x87 ";
    int rc = -1;
    *out = NULL;
    struct tokenizer *t = tok_new(KIND_SPM, e);
    if (!t)
        return -1;
    t->spm.dummy_prefix = t->spm.remove_extra = t->spm.escape = true;
    struct proto m = {
        .name = name, .t = t, .model_type = 1, .unk_surface = {(const uint8_t *)surface, sizeof surface - 1}};
    if (read_model(&m, p, n, e) != 0)
        goto out;
    if (m.model_type != 2) {
        err_set(e, ERR_MODEL, "%s: SentencePiece models of type %s are not supported, only bpe", name,
                model_type_name(m.model_type));
        goto out;
    }
    if (m.denorm_charsmap.n) {
        err_set(e, ERR_MODEL, "%s: a denormaliser (denormalizer_spec) is not supported", name);
        goto out;
    }
    if (m.charsmap.n && read_charsmap(&t->spm, m.charsmap, name, e) != 0)
        goto out;
    t->spm.unk_surface = strndup((const char *)m.unk_surface.p, m.unk_surface.n);
    if (!t->spm.unk_surface) {
        err_set(e, ERR_MEMORY, "%s: out of memory", name);
        goto out;
    }
    if (spm_finish(t, e) != 0) {
        err_wrap(e, "%s", name);
        goto out;
    }
    t->bos = control_id(t, m.bos, "<s>");
    t->eos = control_id(t, m.eos, "</s>");
    if (t->bos >= 0 && tok_add_front(t, (uint32_t)t->bos, e) != 0)
        goto out;
    *out = t;
    t = NULL;
    rc = 0;
out:
    tokenizer_free(t);
    return rc;
}
