#include "core/decode/price.h"

enum {
    PLAIN_FIRST = 3,   /* tokens decoded plainly before the first guess */
    BLOCK = 24,        /* tokens after which speculation is held against plain decoding */
    OFF_FIRST = 128,   /* tokens that it stays off after a loss; doubles up to */
    OFF_MOST = 2048,   /* this */
    PROBE_EVERY = 256, /* tokens after which one is sent plainly, when nothing else measured that and it matters */
    FIRST_CAP = 8,     /* nodes of the first tree; then GROWTH times the largest measured */
    GROWTH = 4,
};

static const double FORGET = 0.96;     /* per measurement of a fit */
static const double MIN_SPREAD = 0.25; /* variance of rows below which a slope says nothing new */
static const double AWAY_MS = 0.5;     /* a link that takes so long leads to another machine */
static const double FAR_MS = 5;        /* a link beside which the noise of this machine is small */
static const double FADE = 0.97;       /* and the old one is believed less and less, until a wide window tells */
static const double LOSS = 1.01;       /* far away a guess costs next to nothing, and it is good to be ready; */
static const double NEAR_LOSS = 0.98;  /* near by speculation has to gain, or it is not worth the trouble */
static const double CLEAR_LOSS = 1.2;  /* and when it costs so much more, a shorter block is enough */
static const double CLEAR_GAIN = 0.7;  /* below this share of plain decoding's time there is no need to look again */
static const double LUCK = 2.5;        /* so much given to the last five tokens or so is more than chance: */
static const double LUCK_KEEP = 0.8;   /* it would be on for some of them */
static const double BELIEF = 0.98;     /* forgetting of offers */
static const double PRIOR = 1.0;       /* offers' worth of trust at the start */

void price_fit_add(struct price_fit *f, double rows, double ms) {
    f->w = f->w * FORGET + 1;
    f->x = f->x * FORGET + rows;
    f->y = f->y * FORGET + ms;
    f->xx = f->xx * FORGET + rows * rows;
    f->xy = f->xy * FORGET + rows * ms;
    double mx = f->x / f->w, my = f->y / f->w, spread = f->xx / f->w - mx * mx;
    if (spread > MIN_SPREAD) {
        double slope = (f->xy / f->w - mx * my) / spread, most = my / mx;
        f->slope = slope < 0 ? 0 : slope < most ? slope : most;
    } else {
        f->slope *= FADE;
    }
    f->fixed = my - f->slope * mx;
    if (f->fixed < 0)
        f->fixed = 0;
}

void price_window(struct price *p, int rows, double elapsed_ms, double compute_ms) {
    double link = elapsed_ms > compute_ms ? elapsed_ms - compute_ms : 0;
    price_fit_add(&p->link, rows, link);
    price_fit_add(&p->compute, rows, compute_ms);
    if (rows > p->widest)
        p->widest = rows;
}

void price_offer(struct price *p, double claimed, bool came) {
    p->claimed = p->claimed * BELIEF + (claimed < 1 ? claimed : 1);
    p->came = p->came * BELIEF + came;
}

static double trust(const struct price *p) {
    double t = (p->came + PRIOR) / (p->claimed + PRIOR);
    return t < 1 ? t : 1;
}

void price_plain(struct price *p, double ms) {
    /* Moves quickly at the start, and is not carried away by one token that something else held up. */
    double keep = p->seen < 8 ? p->seen / (p->seen + 1.0) : 7.0 / 8;
    if (p->seen > 2 && ms > 2 * p->plain_ms)
        ms = 2 * p->plain_ms;
    p->plain_ms = p->plain_ms * keep + ms * (1 - keep);
    p->plain_age = 0;
    p->seen += p->seen < 8;
}

static void block_over(struct price *p) {
    double most = p->link.fixed > FAR_MS ? LOSS : NEAR_LOSS;
    p->share = p->block_ms / (p->plain_ms * p->block_n);
    bool lost = p->block_ms > most * p->plain_ms * p->block_n;
    p->block_ms = 0;
    p->block_n = 0;
    p->unlucky = lost && p->lucky;
    p->lucky = false;
    if (!lost) {
        p->off_next = OFF_FIRST;
        return;
    }
    p->off_left = p->off_next ? p->off_next : OFF_FIRST;
    p->off_next = 2 * p->off_left < OFF_MOST ? 2 * p->off_left : OFF_MOST;
}

/* Is it known what plain decoding costs? */
static bool settled(const struct price *p) {
    return p->seen >= PLAIN_FIRST || (p->seen > 0 && p->link.fixed > FAR_MS);
}

void price_token(struct price *p, double ms) {
    p->plain_age++;
    if (p->off_left > 0) {
        p->unlucky = --p->off_left > 0 && p->unlucky;
        return;
    }
    if (!settled(p))
        return;
    if (!p->tried) { /* the first token with speculation warms up */
        p->tried = true;
        return;
    }
    p->block_ms += ms;
    p->block_n++;
    bool clear = p->block_n >= BLOCK / 3 && p->block_ms > CLEAR_LOSS * p->plain_ms * p->block_n;
    if (p->block_n >= BLOCK || clear)
        block_over(p);
}

void price_missed(struct price *p, double given) {
    p->luck = p->luck * LUCK_KEEP + given;
    if (p->off_left == 0 || p->unlucky || p->luck < LUCK)
        return;
    p->luck = 0;
    p->lucky = true;
    p->off_left = 0;
}

bool price_on(const struct price *p) {
    return p->off_left == 0;
}

bool price_probe(const struct price *p) {
    return p->plain_age >= PROBE_EVERY && p->share > CLEAR_GAIN;
}

/* What a hit saves against a miss, and what one more row costs. */
static double saved(const struct price *p) {
    return p->link.fixed + p->link.slope + p->compute.fixed + p->compute.slope + p->front.fixed;
}

static double row_cost(const struct price *p) {
    return p->link.slope + p->compute.slope + p->front.slope;
}

double price_least(const struct price *p) {
    double save = saved(p);
    return save > 0 && settled(p) ? row_cost(p) / save / trust(p) : 2;
}

int price_cap(const struct price *p, int max_nodes) {
    int cap = p->widest * GROWTH > FIRST_CAP ? p->widest * GROWTH : FIRST_CAP;
    return cap < max_nodes ? cap : max_nodes;
}

bool price_pays(const struct price *p, double sum, int n) {
    /* A pass of the middle that is shorter than the way to it hides behind the wait of others; on this machine nothing
     * hides. */
    double pass = p->compute.fixed > p->link.fixed ? p->compute.fixed - p->link.fixed : 0;
    return trust(p) * sum * saved(p) > n * row_cost(p) + p->front.fixed + pass;
}

bool price_away(const struct price *p) {
    return p->link.fixed >= AWAY_MS;
}

double price_trip(const struct price *p) {
    return p->link.fixed + p->link.slope + p->compute.fixed + p->compute.slope;
}

double price_together(const struct price *p) {
    if (!price_away(p) || p->compute.fixed <= 0)
        return 0; /* here one pass after the other is all there is */
    return (p->link.slope + p->compute.slope) / p->compute.fixed / trust(p);
}

double price_back_least(const struct price *p) {
    double pass = p->back.fixed + p->back.slope;
    return p->back.slope > 0 && pass > 0 ? p->back.slope / pass : 0.2;
}
