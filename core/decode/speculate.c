#include "core/base/clock.h"
#include "core/base/wipe.h"
#include "core/decode/ahead.h"
#include "core/decode/rounds.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *session_mode_name(enum session_mode m) {
    static const char *const names[N_SESSION_MODES] = {"sequential", "stop-and-wait", "auto", "jacobi", "lookahead"};
    return names[m];
}

uint32_t session_pad_ids(int pad_rows, int max_rows) {
    return (uint32_t)(pad_rows + SESSION_PAD_IDLE > max_rows ? pad_rows + SESSION_PAD_IDLE : max_rows);
}

/* ---- life ---- */

static void forget(struct speculation *p) {
    wipe(p->tree, (size_t)p->n * sizeof *p->tree);
    wipe(p->offered, sizeof p->offered);
    p->n = 0;
    p->has_head = false;
    p->n_offered = -1;
    p->pad.n_idle = 0;
    p->n_places = p->room + 1;
    for (int i = 0; i < p->n_places; i++)
        p->places[i] = i;
}

static bool iterates(const struct session_speculation *o) {
    return o->iterate || o->mode == SESSION_JACOBI || o->mode == SESSION_LOOKAHEAD;
}

/* Auto has as many again as a tree in windows behind it. */
static int most_in_flight(const struct session_speculation *o) {
    int n = o->max_nodes ? o->max_nodes : SESSION_NODES;
    return 2 * n < SESSION_IN_FLIGHT ? 2 * n : SESSION_IN_FLIGHT;
}

uint64_t session_speculation_bytes(int hidden, int vocab, const struct session_speculation *o) {
    int nodes = most_in_flight(o), depth = iterates(o) ? rounds_size(o->iterate, &nodes) : -1;
    uint64_t n = (uint64_t)nodes + 1;
    return n * (2 * (uint64_t)hidden * sizeof(float) + sizeof(struct draft_node) + sizeof(struct guess)) +
           (uint64_t)(BACK_ROWS + depth + 1) * (uint64_t)vocab * sizeof(float);
}

int speculation_create(struct session *s, struct err *e) {
    const struct session_speculation *o = &s->o.speculation;
    size_t hidden = (size_t)s->config->hidden, vocab = (size_t)s->config->vocab;
    bool rounds = iterates(o);
    int depth = -1;
    if ((!o->drafter && !rounds && !o->pad_rows) || !s->split)
        return 0;
    int most = s->o.max_rows < SESSION_PAD_ROWS ? s->o.max_rows : SESSION_PAD_ROWS;
    if (o->pad_rows < 0 || o->pad_rows > most)
        return err_set(e, ERR_USAGE, "padded windows of %d rows; at most %d", o->pad_rows, most);
    if (o->max_nodes < 0 || o->max_nodes > SESSION_MAX_NODES)
        return err_set(e, ERR_USAGE, "%d guesses in flight; at most %d", o->max_nodes, SESSION_MAX_NODES);
    struct speculation *p = s->spec = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, ERR_MEMORY, "out of memory");
    p->o = *o;
    if (o->drafter)
        p->drafter = *o->drafter;
    p->max_nodes = o->max_nodes ? o->max_nodes : SESSION_NODES;
    p->room = most_in_flight(o);
    if (rounds)
        depth = rounds_size(o->iterate, &p->room);
    if (rounds && rounds_create(&p->rounds, o->iterate, p->room, e) != 0)
        return -1;
    p->room = p->room > o->pad_rows ? p->room : o->pad_rows;
    p->pad = (struct pad){.rows = o->pad_rows, .tick_ms = o->pad_ms};
    p->max_batch = s->o.max_rows < BACK_ROWS ? s->o.max_rows : BACK_ROWS;
    p->n_logits = BACK_ROWS + depth + 1;
    size_t n = (size_t)p->room + 1;
    p->tree = calloc(n, sizeof *p->tree);
    p->guess = calloc(n, sizeof *p->guess);
    p->map = calloc(n, sizeof *p->map);
    p->doomed = calloc(n + SESSION_PAD_IDLE, sizeof *p->doomed);
    p->places = calloc(n, sizeof *p->places);
    p->tokens = calloc(n, sizeof *p->tokens);
    p->x = malloc(n * hidden * sizeof *p->x);
    p->pass = malloc(n * hidden * sizeof *p->pass);
    p->logits = malloc((size_t)p->n_logits * vocab * sizeof *p->logits);
    if (!p->tree || !p->guess || !p->map || !p->doomed || !p->places || !p->tokens || !p->x || !p->pass || !p->logits)
        return err_set(e, ERR_MEMORY, "out of memory for %d guesses", p->room);
    forget(p);
    return 0;
}

void speculation_free(struct session *s) {
    struct speculation *p = s->spec;
    if (!p)
        return;
    size_t n = (size_t)p->room + 1, rows = n * (size_t)s->config->hidden * sizeof *p->x;
    wipe_free(p->tree, n * sizeof *p->tree);
    free(p->guess);
    free(p->map);
    free(p->doomed);
    free(p->places);
    wipe_free(p->tokens, n * sizeof *p->tokens);
    wipe_free(p->x, rows);
    wipe_free(p->pass, rows);
    wipe_free(p->logits, (size_t)p->n_logits * (size_t)s->config->vocab * sizeof *p->logits);
    rounds_free(p->rounds);
    wipe_free(p, sizeof *p);
    s->spec = NULL;
}

static void tell_fate(struct speculation *p, int i, int fate, double now) {
    const struct guess *g = &p->guess[i];
    if (g->id == 0) /* it did not get away */
        return;
    const struct session_guess said = {.fate = fate,
                                       .source = p->tree[i].source,
                                       .depth = g->depth,
                                       .p = p->tree[i].p,
                                       .path = g->path,
                                       .sent_ms = g->sent_ms,
                                       .came_ms = g->came_ms,
                                       .over_ms = now};
    p->o.fate(p->o.fate_ctx, &said);
}

/* The tree goes, but for the branch of node keep (-1: all of it). decided: another token came where it begins. */
static void tell_fates(const struct session *s, int keep, bool decided) {
    struct speculation *p = s->spec;
    double now = clock_ms();
    for (int i = 0; i < p->n && p->o.fate; i++) {
        int up = p->tree[i].parent;
        p->map[i] = i == keep || (up >= 0 && p->map[up]); /* stays */
        if (i == keep)
            tell_fate(p, i, GUESS_ACCEPTED, now);
        else if (!p->map[i])
            tell_fate(p, i, up < 0 && decided ? GUESS_REJECTED : GUESS_CANCELLED, now);
    }
}

void speculation_forget(struct session *s) {
    struct speculation *p = s->spec;
    if (!p)
        return;
    tell_fates(s, -1, false);
    s->stats.nodes_cancelled += (uint64_t)p->n;
    forget(p);
}

/* ---- the tree ---- */

/* Cancels every branch but that of node keep (-1: all), and a head that is not committed. The nodes stay in the arrays.
 */
static int cancel_branches(struct session *s, int keep, struct err *e) {
    struct speculation *p = s->spec;
    int n = 0;
    if (p->has_head)
        p->doomed[n++] = p->head.id;
    for (int i = 0; i < p->pad.n_idle; i++)
        p->doomed[n++] = p->pad.idle[i];
    p->pad.n_idle = 0;
    for (int i = 0; i < p->n; i++)
        if (p->tree[i].parent < 0 && i != keep)
            p->doomed[n++] = p->guess[i].id;
    kv_table_cancel(s->table, p->doomed, n);
    for (int i = 0; i < n && s->debt == SOUND; i++)
        if (s->o.middle->ops->cancel(s->o.middle, p->doomed[i], e) != 0)
            return session_middle_failed(s, e);
    return 0;
}

void speculation_drop(struct session *s) {
    struct speculation *p = s->spec;
    struct err ignored = {0}; /* the middle's debt says it */
    if (p)
        p->pad.due_ms = 0;
    if (!p || (p->n == 0 && !p->has_head && p->pad.n_idle == 0))
        return;
    (void)cancel_branches(s, -1, &ignored);
    speculation_forget(s);
}

int speculation_take(struct session *s, uint32_t id, const float *x) {
    struct speculation *p = s->spec;
    struct guess *g = NULL;
    if (!p)
        return 0;
    if (p->has_head && p->head.id == id)
        g = &p->head;
    for (int i = 0; i < p->n && !g; i++)
        if (p->guess[i].id == id)
            g = &p->guess[i];
    if (!g)
        return 0;
    if (g->state != SENT)
        return -1;
    memcpy(p->x + (size_t)g->place * (size_t)s->config->hidden, x, (size_t)s->config->hidden * sizeof *x);
    g->state = HERE;
    g->came_ms = p->o.fate ? clock_ms() : 0;
    return 1;
}

static int find_child(const struct speculation *p, uint32_t token) {
    for (int i = 0; i < p->n; i++)
        if (p->tree[i].parent < 0 && p->tree[i].token == token)
            return i;
    return -1;
}

/* Node `at` is the head now, what hangs below it is the tree, and the rest goes. */
static void descend(struct session *s, int at) {
    struct speculation *p = s->spec;
    int n = 0;
    p->head = p->guess[at];
    p->has_head = true;
    for (int i = 0; i < p->n; i++) {
        int parent = p->tree[i].parent;
        p->map[i] = -1;
        if (i == at || parent < 0 || (parent != at && p->map[parent] < 0)) {
            if (i != at)
                p->places[p->n_places++] = p->guess[i].place;
            continue;
        }
        p->map[i] = n;
        p->guess[n] = p->guess[i];
        p->tree[n] = p->tree[i];
        p->tree[n].parent = parent == at ? -1 : p->map[parent];
        p->tree[n].path = p->tree[n].p * (parent == at ? 1 : p->tree[p->tree[n].parent].path);
        n++;
    }
    s->stats.nodes_cancelled += (uint64_t)(p->n - n - 1);
    p->n = n;
}

void speculation_accept(struct session *s, int from, int n) {
    struct speculation *p = s->spec;
    int kept = from;
    for (int i = from; i < n; i++) {
        struct draft_node a = p->tree[i];
        p->map[i] = -1;
        bool sound = a.token < (uint32_t)s->config->vocab && a.parent >= -1 && a.parent < i && a.path >= 0;
        if (sound && a.parent >= from)
            sound = (a.parent = p->map[a.parent]) >= 0;
        uint32_t pos = (sound && a.parent >= 0 ? p->guess[a.parent].pos : p->head.pos) + 1;
        for (int k = 0; k < kept && sound; k++)
            sound = p->tree[k].parent != a.parent || p->tree[k].token != a.token;
        if (!sound || pos >= s->o.max_ctx)
            continue;
        p->map[i] = kept;
        p->tree[kept] = a;
        p->guess[kept++] = (struct guess){.pos = pos};
    }
    p->n = kept;
}

/* ---- sending ---- */

bool speculation_priced(const struct speculation *p) {
    return p->o.mode == SESSION_AUTO && p->pad.rows == 0;
}

int speculation_cap(const struct speculation *p, bool tree) {
    if (p->pad.rows && p->max_nodes >= p->pad.rows)
        return p->pad.rows - 1;
    if (!speculation_priced(p))
        return p->max_nodes;
    return price_cap(&p->price, tree ? p->max_nodes : p->room);
}

/* New nodes below the head. They are the last of the tree then, and have no id yet. */
static void grow(struct session *s, bool miss) {
    struct speculation *p = s->spec;
    const struct session_drafter *d = &p->drafter;
    bool priced = speculation_priced(p), ahead = ahead_wanted(p);
    int old = p->n, cap = speculation_cap(p, miss || !ahead), made;
    double least = priced ? price_least(&p->price) : 0, t0 = clock_ms();
    if (ahead && !miss)
        least = AHEAD_CLEAR(least);
    else if (ahead_model(p) && least < AHEAD_LIKELY)
        least = AHEAD_LIKELY;
    bool now = miss ? !priced || !price_probe(&p->price) : priced && ahead_due(p);
    d->sync(d->ctx, s->tokens, s->n + 1);
    if (now && old < cap && least < 1) {
        int n = ahead ? d->ahead(d->ctx, p->tree, old, cap, (float)least, 0, &made)
                      : d->grow(d->ctx, NULL, 0, p->tree, old, cap, (float)least);
        speculation_accept(s, old, n > cap ? cap : n);
    }
    if (!miss && now) {
        double sum = 0;
        for (int i = old; i < p->n; i++)
            sum += (double)p->tree[i].path;
        if (p->n > old && !price_pays(&p->price, sum, p->n - old))
            p->n = old;
        if (ahead)
            ahead_done(p, t0);
    }
    s->stats.draft_ms += clock_ms() - t0;
}

/* Rows of the next window, of `left` that are to go. The first one, which brings the head, is not held up by guesses
 * that are wanted later if at all: they stand behind the likely ones. */
static int rows_of_next(const struct session *s, bool first, int from, int left) {
    const struct speculation *p = s->spec;
    int n = left < s->o.max_rows ? left : s->o.max_rows, likely = 1;
    if (!first || !speculation_priced(p))
        return n;
    double least = price_together(&p->price);
    while (likely < n && (double)p->tree[from + likely - 1].path >= least)
        likely++;
    return likely;
}

int speculation_send(struct session *s, bool with_head, int from, int *rows, double *at_ms, struct err *e) {
    struct speculation *p = s->spec;
    int all = p->n - from + with_head, at = from - with_head;
    *rows = rows_of_next(s, with_head, from, all);
    s->stats.nodes_sent += (uint64_t)(p->n - from);
    s->stats.windows += all > with_head;
    for (int left = all; left > 0;) {
        int n = rows_of_next(s, with_head && left == all, from, left);
        double front = s->stats.front_ms;
        for (int i = 0; i < n; i++, at++) {
            struct guess *g = at < from ? &p->head : &p->guess[at];
            int parent = at < from ? 0 : p->tree[at].parent;
            uint32_t above = at < from ? s->last_sent : parent < 0 ? p->head.id : p->guess[parent].id;
            *g = (struct guess){.id = s->next_id + (uint32_t)i, .pos = g->pos, .place = p->places[--p->n_places]};
            g->depth = g->pos - p->head.pos;
            g->path = at < from ? 1 : p->tree[at].path;
            g->sent_ms = clock_ms();
            s->nodes[i] = (struct node){.id = g->id, .parent = above, .pos = g->pos};
            p->tokens[i] = at < from ? s->tokens[s->n] : p->tree[at].token;
        }
        s->paced = p->pad.rows > 0;
        if (session_launch(s, p->tokens, n, p->pass, e) != 0)
            return -1;
        if (left == all)
            *at_ms = clock_ms();
        price_fit_add(&p->price.front, n, s->stats.front_ms - front);
        left -= n;
    }
    return 0;
}

/* ---- coming back ---- */

int speculation_await_all(struct session *s, struct err *e) {
    struct speculation *p = s->spec;
    double t0 = clock_ms();
    int rc = 0;
    for (int i = -1; i < p->n && rc == 0; i++)
        while ((i < 0 ? &p->head : &p->guess[i])->state == SENT && rc == 0)
            rc = pad_gather(s, e) < 0 ? -1 : 0;
    s->stats.middle_ms += clock_ms() - t0;
    return rc;
}

/* What lies here already makes a longer path for the pass that follows. Only where looking costs nothing: a middle in
 * this process would compute now what may not be wanted any more. */
static int take_what_came(struct session *s, struct err *e) {
    struct speculation *p = s->spec;
    bool waits = false;
    for (int i = 0; i < p->n; i++)
        waits = waits || (p->tree[i].parent < 0 && p->guess[i].state == SENT);
    if (!waits || !price_away(&p->price))
        return 0;
    int rc;
    while ((rc = session_gather(s, 0, e)) > 0)
        ;
    return rc;
}

/* The likeliest of the nodes that hang below parent and have come; -1: none is likely enough. */
static int next_here(const struct speculation *p, int parent, double least) {
    int best = -1;
    for (int i = 0; i < p->n; i++)
        if (p->tree[i].parent == parent && p->guess[i].state == HERE && (double)p->tree[i].path >= least &&
            (best < 0 || p->tree[i].path > p->tree[best].path))
            best = i;
    return best;
}

int speculation_back(struct session *s, struct guess *const *g, int n, struct err *e) {
    struct speculation *p = s->spec;
    struct stage *back = s->o.back;
    size_t hidden = (size_t)s->config->hidden;
    for (int i = 0; i < n; i++) {
        s->new_ids[i] = g[i]->id;
        memcpy(p->pass + (size_t)i * hidden, p->x + (size_t)g[i]->place * hidden, hidden * sizeof *p->x);
    }
    double t0 = clock_ms(), head_ms = s->stats.head_ms;
    if (kv_table_rows(s->table, s->new_ids, n, s->rows, e) != 0)
        return -1;
    const struct batch b = {.rows = s->rows, .n = n};
    if (back->ops->layers(back, s->back_kv, &b, back->part.lo, back->part.hi, p->pass, e) != 0)
        return -1;
    double t1 = clock_ms();
    s->stats.back_ms += t1 - t0;
    if (session_head(s, p->pass, n, p->logits, e) != 0)
        return -1;
    price_fit_add(&p->price.back, n, t1 - t0 + s->stats.head_ms - head_ms);
    return 0;
}

/* Back layers and head for the head, and in the same pass for the likeliest path below it as far as it is here. */
static int finish_path(struct session *s, struct err *e) {
    struct speculation *p = s->spec;
    if (take_what_came(s, e) != 0)
        return -1;
    size_t vocab = (size_t)s->config->vocab;
    struct guess *chain[BACK_ROWS] = {&p->head};
    uint32_t tokens[BACK_ROWS] = {s->tokens[s->n]};
    int n = 1;
    double least = price_back_least(&p->price);
    for (int at = -1; n < p->max_batch && (at = next_here(p, at, least)) >= 0; n++) {
        chain[n] = &p->guess[at];
        tokens[n] = p->tree[at].token;
    }
    if (speculation_back(s, chain, n, e) != 0)
        return -1;
    double t0 = clock_ms();
    for (int i = 0; i < n; i++) {
        chain[i]->state = DONE;
        chain[i]->row = i;
        if (p->drafter.logits)
            p->drafter.logits(p->drafter.ctx, tokens[i], p->logits + (size_t)i * vocab);
    }
    s->stats.draft_ms += clock_ms() - t0;
    return 0;
}

/* ---- one token ---- */

/* What the modes with guesses do in their own way. */
static const struct way {
    void (*grow)(struct session *s, bool miss);      /* below the head, which is new when it is a miss */
    int (*finish)(struct session *s, struct err *e); /* behind a miss: logits of the head at least; it is here */
    bool drafts;                                     /* with the drafter */
} ways[N_SESSION_MODES] = {[SESSION_STOP_AND_WAIT] = {grow, finish_path, true},
                           [SESSION_AUTO] = {grow, finish_path, true},
                           [SESSION_JACOBI] = {rounds_grow, rounds_finish, false},
                           [SESSION_LOOKAHEAD] = {rounds_grow, rounds_finish, false}};

static void grow_nothing(struct session *s, bool miss) {
    (void)s, (void)miss;
}

/* NULL: token by token, with nothing around it. */
static const struct way *way_of(const struct speculation *p) {
    static const struct way padding = {grow_nothing, finish_path, false};
    const struct way *w = &ways[p->o.mode == SESSION_AUTO && p->pad.rows ? SESSION_STOP_AND_WAIT : p->o.mode];
    bool can = w->grow && (w->drafts ? p->drafter.grow != NULL : p->rounds != NULL);
    return can ? w : p->pad.rows ? &padding : NULL;
}

/* What the drafter had offered for this position against what came. */
static void learn(struct session *s, uint32_t token) {
    struct speculation *p = s->spec;
    const struct session_drafter *d = &p->drafter;
    double claimed = 0, t0 = clock_ms();
    bool came = false;
    if (p->n_offered < 0)
        return;
    for (int i = 0; i < p->n_offered; i++) {
        claimed += (double)p->offered[i].p > 0 ? (double)p->offered[i].p : 0;
        came = came || p->offered[i].token == token;
    }
    price_offer(&p->price, claimed, came);
    d->outcome(d->ctx, p->offered, p->n_offered, token);
    p->n_offered = -1;
    s->stats.draft_ms += clock_ms() - t0;
}

static void ask(struct session *s) {
    struct speculation *p = s->spec;
    double t0 = clock_ms();
    int n = p->drafter.next(p->drafter.ctx, NULL, 0, p->offered, OFFERED);
    p->n_offered = n < 0 ? 0 : n < OFFERED ? n : OFFERED;
    s->stats.draft_ms += clock_ms() - t0;
}

bool speculation_wanted(struct session *s) {
    struct speculation *p = s->spec;
    if (!p || s->debt != SOUND || s->done != s->n || !way_of(p))
        return false;
    return !speculation_priced(p) || price_on(&p->price);
}

void speculation_sampled(struct session *s, const struct sample_params *p, uint32_t n_generated) {
    if (s->spec && s->spec->rounds)
        rounds_sampled(s->spec->rounds, p, s->n, n_generated);
}

int speculation_fill(struct session *s, int n, uint32_t upto) {
    return s->spec && s->feeding ? pad_window(s, n, upto) : 0;
}

void speculation_hold(struct session *s, double front_ms) {
    s->spec->pad.front_ms = front_ms;
    pad_hold(s);
}

void speculation_window(struct session *s, int rows, double elapsed_ms, double compute_ms) {
    if (s->spec)
        price_window(&s->spec->price, rows, elapsed_ms, compute_ms);
}

/* A token came without speculation, which is off: would it have been guessed? Beside a round trip to ask is nothing. */
static void watch(struct session *s) {
    struct speculation *p = s->spec;
    double given = 0;
    uint32_t token = s->tokens[s->n - 1];
    for (int i = 0; i < p->n_offered; i++)
        if (p->offered[i].token == token && (double)p->offered[i].p > 0)
            given = (double)p->offered[i].p;
    price_missed(&p->price, given);
    learn(s, token);
    p->drafter.sync(p->drafter.ctx, s->tokens, s->n);
    ask(s);
}

void speculation_plain(struct session *s, double ms) {
    if (!s->spec || !speculation_priced(s->spec))
        return;
    price_token(&s->spec->price, ms);
    price_plain(&s->spec->price, ms);
    if (!price_on(&s->spec->price) && price_away(&s->spec->price) && s->spec->drafter.next)
        watch(s);
}

int speculation_advance(struct session *s, uint32_t token, struct err *e) {
    struct speculation *p = s->spec;
    const struct way *way = way_of(p);
    double t0 = clock_ms(), draft_ms = s->stats.draft_ms, sent_ms = t0, compute_ms = 0;
    int at = find_child(p, token), from, rows = 0;
    bool hit = at >= 0;
    learn(s, token);
    if (cancel_branches(s, at, e) != 0)
        return -1;
    tell_fates(s, at, true);
    if (hit) {
        descend(s, at);
        s->stats.hits++;
    } else {
        s->stats.nodes_cancelled += (uint64_t)p->n;
        forget(p);
        p->head = (struct guess){.pos = s->n};
        s->stats.steps++;
    }
    from = p->n;
    way->grow(s, !hit);
    if (p->pad.rows && !hit)
        pad_fill(s);
    p->has_head = true;
    if ((!hit || p->n > from) && speculation_send(s, !hit, from, &rows, &sent_ms, e) != 0)
        return -1;
    if (way->drafts)
        ask(s);
    s->stats.late += hit && p->head.state == SENT;
    if (p->head.state == SENT && ahead_await(s, !hit, &compute_ms, e) != 0)
        return -1;
    if (!hit)
        price_window(&p->price, rows, clock_ms() - sent_ms, compute_ms);
    if (p->pad.rows && !hit) { /* nothing is in flight when the next one is told what became of this */
        if (speculation_await_all(s, e) != 0)
            return -1;
        pad_came(s);
    }
    if (p->head.state == HERE && (hit ? finish_path : way->finish)(s, e) != 0)
        return -1;
    size_t vocab = (size_t)s->config->vocab;
    memcpy(s->logits, p->logits + (size_t)p->head.row * vocab, vocab * sizeof *s->logits);
    uint32_t id = p->head.id;
    p->places[p->n_places++] = p->head.place;
    p->has_head = false;
    int rc = session_commit(s, &id, 1, true, e);
    s->sent = s->done;
    s->last_sent = id;
    if (speculation_priced(p) && rc == 0) {
        double ms = clock_ms() - t0;
        price_token(&p->price, ms);
        if (!hit && p->n == 0)
            price_plain(&p->price, ms - (s->stats.draft_ms - draft_ms));
    }
    return rc;
}

void session_set_mode(struct session *s, enum session_mode m) {
    if (!s->spec)
        return;
    speculation_drop(s);
    s->spec->o.mode = m;
}
