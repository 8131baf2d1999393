/* A pass on the cards of a team: the forward pass of a pre-norm, gated-MLP transformer as launches on each.
 *
 * What a piece of a pass brings along - which rows, which slots, cos and sin, x - is put together in pinned memory and
 * copied in one go; where it stands follows from the bucket of rows alone. Launches are made for buckets and read the
 * counts on the card, so that recorded ones serve any piece of their bucket. */
#include "gpu/share.h"

#include "core/cpu/cpu.h"

#include <math.h>
#include <string.h>

static void *card_at(const struct share *s, size_t offset) {
    return (void *)(uintptr_t)(s->in + offset);
}

/* ---- what a piece brings along ---- */

/* Finds the distinct trunks of a pass and the slot numbers that its tables take in all. Neighbours are mostly rows of
 * one session. */
static size_t find_trunks(struct share *s, const struct batch *b) {
    size_t n_slots = 0, longest_tails = 0;
    s->n_trunks = 0;
    for (int i = 0; i < b->n; i++) {
        const struct row *r = &b->rows[i];
        int t = s->n_trunks - 1;
        while (t >= 0 && s->trunks[t].slots != r->trunk)
            t--;
        if (t < 0)
            s->trunks[t = s->n_trunks++] = (struct trunk){.slots = r->trunk};
        if (r->n_trunk > s->trunks[t].n)
            s->trunks[t].n = r->n_trunk;
        s->trunk_of[i] = (uint32_t)t;
        longest_tails += r->n_tail;
    }
    for (int t = 0; t < s->n_trunks; t++) {
        s->trunks[t].at = (uint32_t)n_slots;
        n_slots += ((size_t)s->trunks[t].n + 3) / 4 * 4; /* each begins on 16 bytes */
    }
    return n_slots + longest_tails;
}

struct piece {
    int first, n, bucket;
    uint32_t max_keys;
    struct layout at;
    size_t bytes; /* to copy */
};

/* Rows, items, cos and sin, slots of the piece's rows of b, behind one another in staging memory. */
static void describe(const struct share *s, const struct batch *b, uint8_t *to, struct piece *p) {
    const struct model_config *c = s->config;
    struct gpu_row *rows = (struct gpu_row *)(void *)(to + p->at.rows);
    uint32_t *slots = (uint32_t *)(void *)(to + p->at.slots), n_slots = 0, pos[PIECE_ROWS];
    for (int t = 0; t < s->n_trunks; t++) {
        n_slots = s->trunks[t].at + s->trunks[t].n;
        if (s->trunks[t].n)
            memcpy(slots + s->trunks[t].at, s->trunks[t].slots, s->trunks[t].n * sizeof *slots);
    }
    for (int i = 0; i < p->n; i++) {
        const struct row *r = &b->rows[p->first + i];
        rows[i] = (struct gpu_row){.pos = r->pos,
                                   .slot = r->slot,
                                   .n_trunk = r->n_trunk,
                                   .trunk = s->trunks[s->trunk_of[p->first + i]].at,
                                   .n_tail = r->n_tail,
                                   .tail = n_slots};
        if (r->n_tail)
            memcpy(slots + n_slots, r->tail, r->n_tail * sizeof *slots);
        n_slots += r->n_tail;
        pos[i] = r->pos;
    }
    cpu_rope_table((float *)(void *)(to + p->at.cs), pos, p->n, s->inv_freq, c->head_dim);
    p->bytes = p->at.slots + n_slots * sizeof *slots;
    *(struct gpu_pass *)(void *)to = (struct gpu_pass){
        .n_rows = p->n,
        .n_items =
            op_attend_items(rows, p->n, c->n_heads, c->n_kv_heads, (struct gpu_item *)(void *)(to + p->at.items)),
        .rows = card_at(s, p->at.rows),
        .items = card_at(s, p->at.items),
        .slots = card_at(s, p->at.slots),
        .cs = card_at(s, p->at.cs),
    };
}

/* A row of x on its way to a card, where it lies in slices, or back. */
static float *staged(const struct share *s, const struct staging *st, const struct piece *p, int row, int slice) {
    float *x = (float *)(void *)(st->p + p->at.x);
    return x + ((size_t)slice * (size_t)p->bucket + (size_t)row) * (size_t)s->hidden.each;
}

static size_t slice_bytes(const struct share *s, int slice) {
    int rest = s->config->hidden - slice * s->hidden.each;
    return (size_t)(rest < s->hidden.each ? rest : s->hidden.each) * sizeof(float);
}

static void put_x(const struct share *s, const struct staging *st, const struct piece *p, const float *x) {
    for (int j = 0; j < s->card->seat.n; j++)
        for (int i = 0; i < p->n; i++)
            memcpy(staged(s, st, p, i, j),
                   x + (size_t)(p->first + i) * (size_t)s->config->hidden + (size_t)(j * s->hidden.each),
                   slice_bytes(s, j));
}

static void take_x(const struct share *s, const struct staging *st, const struct piece *p, float *x) {
    for (int j = 0; j < s->card->seat.n; j++)
        for (int i = 0; i < p->n; i++)
            memcpy(x + (size_t)(p->first + i) * (size_t)s->config->hidden + (size_t)(j * s->hidden.each),
                   staged(s, st, p, i, j), slice_bytes(s, j));
}

/* ---- launches ---- */

static void product(const struct share *s, const struct piece *p, const struct gpu_matrix *w, const float *bias,
                    struct planes x, enum product_use use, float *to, int ld) {
    const struct product q = {.w = w, .x = x, .bias = bias, .use = use, .to = to, .ld = ld};
    op_product(s->card->gpu, card_at(s, 0), p->bucket, &q, s->product);
}

/* Its slice of x has been added to; afterwards all of x is there. */
static void gather_x(const struct share *s, const struct piece *p) {
    team_gather(s->card->team, s->card->seat.rank, s->in + p->at.x,
                (size_t)p->bucket * (size_t)s->hidden.each * sizeof(float));
}

/* Where this card's columns of planes go, `each` of them on each card: into the planes, if it is alone. */
static struct planes own_planes(const struct share *s, const struct piece *p, int each, struct planes whole) {
    struct planes own = whole;
    if (s->card->seat.n == 1)
        return whole;
    own.ld = op_join_ld(each);
    size_t plane = (size_t)p->bucket * (size_t)own.ld;
    own.hi = s->gathered + 2 * plane * (size_t)s->card->seat.rank;
    own.lo = own.hi + plane;
    return own;
}

static void gather_planes(const struct share *s, const struct piece *p, int each, struct planes whole) {
    int n = s->card->seat.n;
    if (n == 1)
        return;
    team_gather(s->card->team, s->card->seat.rank, (cu_ptr)(uintptr_t)s->gathered, op_join_block(p->bucket, each));
    op_join(s->card->gpu, card_at(s, 0), p->bucket, s->gathered, n, each, whole);
}

static void attention(const struct share *s, const struct share_kv *kv, int index, const struct piece *p) {
    const struct model_config *c = s->config;
    const struct cuda_layer *y = &s->layers[index - s->lo];
    const struct gpu_pass *pass = card_at(s, 0);
    struct attention a = {.qkv = s->qkv,
                          .ld = y->w[LAYER_QKV].rows,
                          .q_at = 0,
                          .k_at = y->k_at,
                          .v_at = y->v_at,
                          .n_heads = s->n_heads,
                          .n_kv_heads = s->n_kv_heads,
                          .head_dim = c->head_dim,
                          .q_norm = y->v.q_norm,
                          .k_norm = y->v.k_norm,
                          .eps = c->rms_eps,
                          .window = index >= c->sliding_from ? c->sliding_window : 0,
                          .out = own_planes(s, p, s->n_heads * c->head_dim, s->att)};
    share_kv_layer(kv, index, &a);
    op_rope_kv(s->card->gpu, pass, p->bucket, &a);
    op_attend(s->card->gpu, pass, p->bucket, p->max_keys, &a, (float *)(uintptr_t)kv->scratch);
    gather_planes(s, p, s->n_heads * c->head_dim, s->att);
}

static void gated_mlp(const struct share *s, const struct cuda_layer *y, const struct piece *p) {
    const struct product q = {.w = &y->w[LAYER_GATE_UP],
                              .x = s->h,
                              .bias = y->v.bias[LAYER_GATE_UP],
                              .use = PRODUCT_GATE,
                              .gated = own_planes(s, p, s->ffn.each, s->gated)};
    op_product(s->card->gpu, card_at(s, 0), p->bucket, &q, s->product);
    gather_planes(s, p, s->ffn.each, s->gated);
}

static void run_layer(const struct share *s, const struct share_kv *kv, int index, const struct piece *p) {
    const struct model_config *c = s->config;
    const struct cuda_layer *y = &s->layers[index - s->lo];
    const struct gpu_pass *pass = card_at(s, 0);
    struct gpu *g = s->card->gpu;
    float *x = card_at(s, p->at.x), *mine = x + (size_t)s->card->seat.rank * (size_t)p->bucket * (size_t)s->hidden.each;
    op_rmsnorm(g, pass, p->bucket, x, s->hidden.each, y->v.attn_norm, c->hidden, c->rms_eps, s->h);
    product(s, p, &y->w[LAYER_QKV], y->v.bias[LAYER_QKV], s->h, PRODUCT_STORE, s->qkv, y->w[LAYER_QKV].rows);
    attention(s, kv, index, p);
    product(s, p, &y->w[LAYER_O], y->v.bias[LAYER_O], s->att, PRODUCT_ADD, mine, s->hidden.each);
    gather_x(s, p);
    op_rmsnorm(g, pass, p->bucket, x, s->hidden.each, y->v.mlp_norm, c->hidden, c->rms_eps, s->h);
    gated_mlp(s, y, p);
    product(s, p, &y->w[LAYER_DOWN], y->v.bias[LAYER_DOWN], s->gated, PRODUCT_ADD, mine, s->hidden.each);
    gather_x(s, p);
}

/* ---- passes ---- */

/* What the ranks of a team do at the same time. */
struct pass {
    struct share *shares;
    struct share_kv *kvs;
    const struct batch *b;
    int lo, hi;
    float *x;
    int rows, n_pieces; /* rows of each but the last */
    unsigned epoch;
};

static int ranks(const struct share *shares) {
    return shares->card->seat.n;
}

/* Rows of the pieces in which n rows go: few enough for the scratch, and two pieces where copying is worth hiding. Any
 * cut gives the same bits. */
static int rows_of_pieces(const struct share *s, int n) {
    int rows = n <= OVERLAP_ROWS ? n : share_bucket((n + 1) / 2);
    return rows < s->piece_rows ? rows : s->piece_rows;
}

static struct piece piece_of(const struct pass *p, int i) {
    int first = i * p->rows, rest = p->b->n - first;
    struct piece y = {.first = first, .n = rest < p->rows ? rest : p->rows};
    uint32_t max_pos = 0;
    for (int r = 0; r < y.n; r++)
        max_pos = p->b->rows[first + r].pos > max_pos ? p->b->rows[first + r].pos : max_pos;
    y.bucket = share_bucket(y.n);
    y.at = share_layout(p->shares, y.bucket);
    y.max_keys = kv_key_bucket(max_pos + 1);
    return y;
}

static void run_plain(const struct pass *p, int rank, const struct piece *y) {
    for (int i = p->lo; i < p->hi; i++)
        run_layer(&p->shares[rank], &p->kvs[rank], i, y);
}

/* ---- recordings ---- */

static struct launches launches_of(const struct pass *p, const struct piece *y) {
    return (struct launches){p->lo, p->hi, y->bucket, y->max_keys, p->epoch};
}

static struct recording *recording_of(const struct pass *p, int rank, const struct piece *y) {
    struct launches of = launches_of(p, y);
    return y->bucket <= GPU_DECODE_ROWS ? recordings_find(&p->kvs[rank].recordings, &of) : NULL;
}

/* Whether launches of this pass are to be recorded: those that come for the second time. */
static bool note_pieces(const struct pass *p, int rank) {
    struct recordings *all = &p->kvs[rank].recordings;
    bool due = false;
    for (int i = 0; i < p->n_pieces; i++) {
        struct piece y = piece_of(p, i);
        struct launches of = launches_of(p, &y);
        if (y.bucket <= GPU_DECODE_ROWS)
            due |= recordings_note(all, recordings_place(all, &of));
    }
    return due;
}

static int record_pieces(void *ctx, int rank, struct err *e) {
    const struct pass *p = ctx;
    struct card *card = p->shares[rank].card;
    for (int i = 0; i < p->n_pieces; i++) {
        struct piece y = piece_of(p, i);
        struct recording *r = recording_of(p, rank, &y);
        if (!r || !r->due || r->exec)
            continue;
        gpu_record_begin(card->gpu);
        run_plain(p, rank, &y);
        r->exec = gpu_record_end(card->gpu);
    }
    return card_wait(card, e);
}

/* A team replays on all its cards or on none: for want of memory some may have no recording. */
static void level_recordings(const struct pass *p) {
    for (int i = 0; i < p->n_pieces; i++) {
        struct piece y = piece_of(p, i);
        bool all = true;
        for (int rank = 0; rank < ranks(p->shares); rank++) {
            const struct recording *r = recording_of(p, rank, &y);
            all &= r && r->exec;
        }
        for (int rank = 0; rank < ranks(p->shares) && !all; rank++) {
            struct recording *r = recording_of(p, rank, &y);
            if (r)
                recording_forget(&p->kvs[rank].recordings, r);
        }
    }
}

/* ---- running ---- */

/* Enqueues a piece, its way in and its way out. */
static void start(const struct pass *p, int rank, const struct staging *st, struct piece *y) {
    struct share *s = &p->shares[rank];
    struct gpu *g = s->card->gpu;
    const struct recording *r = recording_of(p, rank, y);
    describe(s, p->b, st->p, y);
    put_x(s, st, y, p->x);
    gpu_copy_to(g, s->in, st->p, y->bytes);
    if (r && r->exec)
        team_replay(s->card->team, rank, r->exec);
    else
        run_plain(p, rank, y);
    if (rank == 0) /* up to the last row of the last slice */
        gpu_copy_from(g, st->p + y->at.x, s->in + y->at.x,
                      ((size_t)(ranks(s) - 1) * (size_t)y->bucket + (size_t)y->n) * (size_t)s->hidden.each *
                          sizeof(float));
}

/* While the card computes a piece, the host takes the one before it out and puts the next one together. A piece reads
 * what those before it have written: parents come first in a batch. x is read by all and written by rank 0, a piece
 * only when the others have given their part of it. After a failure all of this does nothing. */
static int run_pieces(void *ctx, int rank, struct err *e) {
    const struct pass *p = ctx;
    struct share *s = &p->shares[rank];
    struct gpu *g = s->card->gpu;
    struct piece pieces[2];
    for (int i = 0; i < p->n_pieces; i++) {
        struct staging *st = &s->staging[i % 2], *before = &s->staging[(i + 1) % 2];
        pieces[i % 2] = piece_of(p, i);
        start(p, rank, st, &pieces[i % 2]);
        if (i + 1 < p->n_pieces)
            gpu_event_record(g, st->done);
        if (i > 0 && gpu_event_wait(g, before->done) && rank == 0)
            take_x(s, before, &pieces[(i + 1) % 2], p->x);
    }
    if (card_wait(s->card, e) != 0)
        return -1;
    if (rank == 0)
        take_x(s, &s->staging[(p->n_pieces - 1) % 2], &pieces[(p->n_pieces - 1) % 2], p->x);
    return 0;
}

/* Where one card of a team has failed, what the others have is of no use either: all of them tell why. */
static int give_up(const struct share *shares, const struct err *why, struct err *e) {
    for (int rank = 0; rank < ranks(shares); rank++)
        shares[rank].card->broken = *why;
    return err_set(e, ERR_DEVICE, "%s", why->msg); /* whatever it began with, want of memory for instance */
}

int share_layers(struct share *shares, struct share_kv *kvs, const struct batch *b, int lo, int hi, float *x,
                 struct err *e) {
    struct pass p = {.shares = shares, .kvs = kvs, .b = b, .lo = lo, .hi = hi, .x = x};
    struct team *team = shares->card->team;
    struct err why = {0};
    bool due = false;
    p.rows = rows_of_pieces(shares, b->n);
    p.n_pieces = (b->n + p.rows - 1) / p.rows;
    for (int rank = 0; rank < ranks(shares); rank++) {
        struct share *s = &shares[rank];
        if (card_enter(s->card, e) != 0 || share_reserve_slots(s, find_trunks(s, b), e) != 0)
            return -1;
        p.epoch += s->in_epoch;
    }
    for (int rank = 0; rank < ranks(shares); rank++)
        due |= note_pieces(&p, rank);
    if (due && team_run(team, record_pieces, &p, &why) == 0)
        level_recordings(&p);
    if (why.kind == ERR_NONE && team_run(team, run_pieces, &p, &why) == 0)
        return 0;
    return give_up(shares, &why, e);
}

/* ---- the head ---- */

struct head_pass {
    struct share *shares;
    const float *x;
    int n;
    float *logits;
};

/* Each rank's rows of the head are columns of the logits. */
static int run_head(void *ctx, int rank, struct err *e) {
    const struct head_pass *p = ctx;
    const struct share *s = &p->shares[rank];
    const struct model_config *c = s->config;
    const struct staging *st = &s->staging[0];
    struct gpu *g = s->card->gpu;
    size_t hidden = (size_t)c->hidden, vocab = (size_t)c->vocab, mine = (size_t)s->vocab.n;
    for (int at = 0, rows; at < p->n; at += rows) {
        rows = p->n - at < share_head_rows(s) ? p->n - at : share_head_rows(s);
        struct piece y = {.n = rows, .bucket = share_bucket(rows)};
        y.at = share_layout(s, y.bucket);
        *(struct gpu_pass *)(void *)st->p = (struct gpu_pass){.n_rows = rows};
        memcpy(st->p + y.at.x, p->x + (size_t)at * hidden, (size_t)rows * hidden * sizeof *p->x); /* in one slice */
        gpu_copy_to(g, s->in, st->p, sizeof(struct gpu_pass));
        gpu_copy_to(g, s->in + y.at.x, st->p + y.at.x, (size_t)rows * hidden * sizeof *p->x);
        op_rmsnorm(g, card_at(s, 0), y.bucket, card_at(s, y.at.x), c->hidden, s->norm, c->hidden, c->rms_eps, s->h);
        product(s, &y, &s->head, NULL, s->h, PRODUCT_STORE, s->logits, s->vocab.n);
        gpu_copy_from(g, s->logits_host, (cu_ptr)(uintptr_t)s->logits, (size_t)rows * mine * sizeof(float));
        if (card_wait(s->card, e) != 0)
            return -1;
        for (int i = 0; i < rows; i++)
            memcpy(p->logits + (size_t)(at + i) * vocab + (size_t)s->vocab.first, s->logits_host + (size_t)i * mine,
                   mine * sizeof(float));
    }
    return 0;
}

int share_head(struct share *shares, const float *x, int n, float *logits, struct err *e) {
    struct head_pass p = {.shares = shares, .x = x, .n = n, .logits = logits};
    struct err why = {0};
    for (int rank = 0; rank < ranks(shares); rank++) /* what a pass in need may have given up */
        if (card_enter(shares[rank].card, e) != 0 || share_reserve_slots(&shares[rank], 0, e) != 0)
            return -1;
    if (team_run(shares->card->team, run_head, &p, &why) == 0)
        return 0;
    return give_up(shares, &why, e);
}
