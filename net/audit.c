#include "net/audit.h"

#include "core/base/wipe.h"
#include "core/model/kv.h"
#include "net/digest.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "leaves are hashed as they lie in memory");

/* ---- the tree ---- */

/* What stands before the content, so that no leaf can pass for an inner node. */
enum { TAG_LEAF = 0, TAG_INNER = 1 };

static int leaf_of(uint32_t i, const void *x, size_t n_bytes, uint8_t leaf[WIRE_DIGEST], struct err *e) {
    const uint8_t head[5] = {TAG_LEAF, (uint8_t)i, (uint8_t)(i >> 8), (uint8_t)(i >> 16), (uint8_t)(i >> 24)};
    struct digest d;
    digest_start(&d);
    digest_add(&d, head, sizeof head);
    digest_add(&d, x, n_bytes);
    return digest_end(&d, leaf, e);
}

int audit_leaf(uint32_t i, const float *x, size_t n, uint8_t leaf[WIRE_DIGEST], struct err *e) {
    return leaf_of(i, x, n * sizeof *x, leaf, e);
}

int audit_root(uint8_t (*leaves)[WIRE_DIGEST], int n, uint8_t root[WIRE_DIGEST], struct err *e) {
    if (n < 1)
        return err_set(e, ERR_USAGE, "a Merkle tree of %d leaves", n);
    for (; n > 1; n = (n + 1) / 2) {
        for (int i = 0; i + 1 < n; i += 2) {
            const uint8_t tag = TAG_INNER;
            struct digest d;
            digest_start(&d);
            digest_add(&d, &tag, 1);
            digest_add(&d, leaves[i], (size_t)2 * WIRE_DIGEST);
            if (digest_end(&d, leaves[i / 2], e) != 0)
                return -1;
        }
        if (n % 2)
            memmove(leaves[n / 2], leaves[n - 1], WIRE_DIGEST);
    }
    memcpy(root, leaves[0], WIRE_DIGEST);
    return 0;
}

/* ---- the opened layer ---- */

enum { CHUNK_ROWS = 256 }; /* of a pass: bounds scratch; results are the same for any */

static int caught(struct err *e, int layer, const char *how) {
    return err_set(e, ERR_PEER,
                   "audit of layer %d: %s; this cloud does not compute what it was asked to: do not use it", layer,
                   how);
}

/* What can be told without computing: that the opening is the one asked for, is what the root committed to, and begins
 * and ends with what went over the wire. */
static int check_commitment(const struct audit_check *c, const struct wire_opening *o, struct err *e) {
    const int n_leaves = c->hi - c->lo + 1, at = c->layer - c->lo;
    const size_t n_bytes = (size_t)c->n_rows * (size_t)weights_config(c->weights)->hidden * sizeof(float);
    if (o->layer != c->layer || o->n_leaves != n_leaves || o->n_rows != (uint32_t)c->n_rows)
        return err_set(e, ERR_PEER,
                       "audit of layer %d: an opening of layer %d with %d leaves over %u rows; expected %d leaves over "
                       "%d rows",
                       c->layer, o->layer, o->n_leaves, o->n_rows, n_leaves, c->n_rows);

    uint8_t root[WIRE_DIGEST];
    uint8_t(*scratch)[WIRE_DIGEST] = malloc((size_t)n_leaves * WIRE_DIGEST);
    if (!scratch)
        return err_set(e, ERR_MEMORY, "out of memory for an audit");
    memcpy(scratch, o->leaves, (size_t)n_leaves * WIRE_DIGEST);
    int rc = audit_root(scratch, n_leaves, root, e);
    free(scratch);
    if (rc != 0)
        return -1;
    if (memcmp(root, c->root, WIRE_DIGEST) != 0)
        return caught(e, c->layer, "its leaves do not make the root that it committed to");

    const struct {
        int leaf;
        const void *x;
        const char *otherwise;
    } tensors[] = {
        {0, c->sent, "it committed to another input than it was sent"},
        {n_leaves - 1, c->got, "it committed to another output than it returned"},
        {at, o->in, "the layer's input is not the one that it committed to"},
        {at + 1, o->out, "the layer's output is not the one that it committed to"},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        uint8_t leaf[WIRE_DIGEST];
        if (leaf_of((uint32_t)tensors[i].leaf, tensors[i].x, n_bytes, leaf, e) != 0)
            return -1;
        if (memcmp(leaf, o->leaves + (size_t)tensors[i].leaf * WIRE_DIGEST, WIRE_DIGEST) != 0)
            return caught(e, c->layer, tensors[i].otherwise);
    }
    return 0;
}

/* One layer over a chain of n rows from position 0. */
struct pass {
    const struct backend_ops *ops;
    struct stage *stage;
    struct kv *kv;
    struct slot_pool *pool;
    struct kv_table *table;
    struct node *nodes; /* [n_chunk] */
    uint32_t *ids;      /* [n_chunk] */
    struct row *rows;   /* [n_chunk] */
    int n_chunk;
};

static int pass_open(struct pass *p, const struct audit_check *c, struct err *e) {
    const struct part part = {.lo = c->layer, .hi = c->layer + 1};
    *p = (struct pass){.ops = c->backend->ops, .n_chunk = c->n_rows < CHUNK_ROWS ? c->n_rows : CHUNK_ROWS};
    const struct load_opts opts = {.quant = c->quant, .max_rows = p->n_chunk};
    const uint32_t n = (uint32_t)c->n_rows;
    p->nodes = malloc((size_t)p->n_chunk * sizeof *p->nodes);
    p->ids = malloc((size_t)p->n_chunk * sizeof *p->ids);
    p->rows = malloc((size_t)p->n_chunk * sizeof *p->rows);
    if (!p->nodes || !p->ids || !p->rows)
        return err_set(e, ERR_MEMORY, "out of memory for an audit");
    if (p->ops->stage_load(c->backend, c->weights, &part, &opts, &p->stage, e) != 0 ||
        p->ops->kv_create(p->stage, n, c->kv_type, &p->kv, e) != 0 || slot_pool_create(&p->pool, n, e) != 0)
        return -1;
    return kv_table_create(&p->table, p->pool, n, (uint32_t)p->n_chunk, e);
}

static void pass_close(struct pass *p) {
    kv_table_free(p->table);
    slot_pool_free(p->pool);
    if (p->kv)
        p->ops->kv_free(p->kv);
    if (p->stage)
        p->ops->stage_free(p->stage);
    free(p->nodes);
    free(p->ids);
    free(p->rows);
}

/* x [n_rows][hidden] becomes the layer's output. */
static int pass_run(struct pass *p, const struct audit_check *c, float *x, struct err *e) {
    const size_t hidden = (size_t)weights_config(c->weights)->hidden;
    for (int at = 0; at < c->n_rows; at += p->n_chunk) {
        const int n = c->n_rows - at < p->n_chunk ? c->n_rows - at : p->n_chunk;
        const struct batch batch = {.rows = p->rows, .n = n};
        for (int i = 0; i < n; i++) {
            const uint32_t pos = (uint32_t)(at + i);
            p->nodes[i] = (struct node){.id = pos + 1, .parent = pos, .pos = pos};
            p->ids[i] = pos + 1;
        }
        if (kv_table_add(p->table, p->nodes, n, NULL, e) != n || kv_table_rows(p->table, p->ids, n, p->rows, e) != 0 ||
            p->ops->layers(p->stage, p->kv, &batch, c->layer, c->layer + 1, x + (size_t)at * hidden, e) != 0 ||
            kv_table_commit(p->table, p->ids, n, e) != 0)
            return -1;
    }
    return 0;
}

static bool all_finite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* |theirs - ours| / |ours|. Not a number when either is not. */
static double distance(const float *theirs, const float *ours, size_t n) {
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)theirs[i] - (double)ours[i];
        diff += d * d;
        norm += (double)ours[i] * (double)ours[i];
    }
    return diff == 0 ? 0 : sqrt(diff) / sqrt(norm);
}

/* At least, of the last layer with a codec of few bits. */
static const double COARSE_TOLERANCE = 4e-3;

/* Of the last layer both sides see what the codec leaves, and next to a rounding boundary a difference in the last bits
 * becomes a whole step of it. */
static double allowed(const struct audit_check *c) {
    const bool coarse = c->codec == CODEC_BF16 || c->codec == CODEC_Q8;
    if (c->tolerance == 0 || c->layer != c->hi - 1 || !coarse)
        return c->tolerance;
    return fmax(COARSE_TOLERANCE, 2 * c->tolerance);
}

/* So many rows may be further off. */
struct step {
    double most;
    int n_over, n_may;
};

static int compare(const struct audit_check *c, const float *theirs, const float *ours, double *worst, struct err *e) {
    const size_t hidden = (size_t)weights_config(c->weights)->hidden;
    const double most = allowed(c);
    const bool fp8 = most != 0 && c->kv_type == DT_E4M3;
    struct step steps[] = {{.most = most}, {.most = 10 * most}, {.most = 100 * most}};
    const int n_steps = fp8 ? 3 : 1;
    int row = -1;
    if (fp8) {
        steps[0].n_may = 3 * c->n_rows / 4;
        steps[1].n_may = c->n_rows / 4;
    }
    for (int i = 0; i < c->n_rows; i++) {
        const size_t at = (size_t)i * hidden;
        const double d = distance(theirs + at, ours + at, hidden);
        const bool bits = most != 0 || memcmp(theirs + at, ours + at, hidden * sizeof *ours) == 0;
        for (int k = 0; k < n_steps; k++)
            if (!(bits && d <= steps[k].most) && ++steps[k].n_over > steps[k].n_may && row < 0)
                row = i;
        if (!(d <= *worst) && !isnan(*worst))
            *worst = d;
    }
    if (row < 0)
        return 0;
    return err_set(e, ERR_PEER,
                   "audit of layer %d: its output is not that of our weights: row %d differs, the largest relative "
                   "distance is %.3g, at most %.3g is allowed%s; this cloud runs other weights, fewer bits or other "
                   "layers: do not use it",
                   c->layer, row, *worst, most,
                   fp8 ? " (with fp8 ten times as much in three rows of four, and a hundred times in one)" : "");
}

int audit_opening(const struct audit_check *c, const struct wire_opening *o, double *worst, struct err *e) {
    *worst = 0;
    const struct model_config *config = weights_config(c->weights);
    if (c->lo < 0 || c->hi > config->n_layers || c->layer < c->lo || c->layer >= c->hi || c->n_rows < 1)
        return err_set(e, ERR_USAGE, "no audit of layer %d of [%d, %d) over %d rows in a model of %d layers", c->layer,
                       c->lo, c->hi, c->n_rows, config->n_layers);
    if (check_commitment(c, o, e) != 0)
        return -1;

    const size_t n = (size_t)c->n_rows * (size_t)config->hidden, n_bytes = n * sizeof(float);
    struct pass pass = {0};
    int rc = -1;
    float *ours = malloc(n_bytes), *theirs = malloc(n_bytes);
    if (!ours || !theirs) {
        err_set(e, ERR_MEMORY, "out of memory for an audit of %d rows", c->n_rows);
        goto out;
    }
    memcpy(ours, o->in, n_bytes);
    memcpy(theirs, o->out, n_bytes);
    if (!all_finite(ours, n) || !all_finite(theirs, n)) {
        caught(e, c->layer, "it opened numbers that are not finite");
        goto out;
    }
    if (pass_open(&pass, c, e) != 0 || pass_run(&pass, c, ours, e) != 0)
        goto out;
    if (c->layer == c->hi - 1) {
        enum codec codec = c->codec;
        codec_boundary(&codec, ours, c->n_rows, config->hidden);
    }
    rc = compare(c, theirs, ours, worst, e);
out:
    pass_close(&pass);
    wipe_free(ours, n_bytes);
    wipe_free(theirs, n_bytes);
    return rc;
}

/* All CPU paths give equal bits: it is their contract (core/cpu/cpu.h), and tests hold them to it. */
static bool is_cpu(const char *backend) {
    return strncmp(backend, "cpu-", 4) == 0;
}

bool audit_math_fast(const char *backend) {
    static const char fast[] = "-fast";
    const char *at = strstr(backend, fast);
    return at && (at[sizeof fast - 1] == '\0' || at[sizeof fast - 1] == '-');
}

/* For a pair of backends that sum differently, in f32 or better, and for one that rounds activations before: a sum that
 * ends next to a rounding boundary then becomes another of only 256 numbers. docs/threat-model.md has the measurements
 * behind both. */
static const double OTHER_TOLERANCE = 1e-3, FAST_TOLERANCE = 8e-3;

double audit_tolerance(const char *theirs, const char *ours) {
    bool fast = audit_math_fast(theirs), alike = fast == audit_math_fast(ours);
    return is_cpu(theirs) && is_cpu(ours) && alike ? 0 : fast || !alike ? FAST_TOLERANCE : OTHER_TOLERANCE;
}
