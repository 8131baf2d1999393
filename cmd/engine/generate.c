#include "cmd/engine/generate.h"

#include "cmd/engine/stop.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/clock.h"
#include "core/base/wipe.h"

#include <string.h>

const char *stop_reason_name(enum stop_reason r) {
    static const char *const names[] = {"none", "eos", "stop", "length", "context", "interrupt", "output"};
    return names[r];
}

void answer_free(struct answer *a) {
    wbuf_free(&a->text);
    ids_free(&a->ids);
    ids_free(&a->ends);
    *a = (struct answer){0};
}

size_t answer_whole_ids(const struct answer *a, size_t *n_text) {
    size_t n = a->ids.n;
    while (n && a->ends.p[n - 1] > a->text.n)
        n--;
    *n_text = n ? a->ends.p[n - 1] : 0;
    return n;
}

double answer_tok_s(const struct answer *a) {
    return a->n_sampled > 1 && a->decode_ms > 0 ? (a->n_sampled - 1) / a->decode_ms * 1e3 : 0;
}

double answer_tokens_per_step(const struct answer *a) {
    return a->n_sampled > 1 && a->steps ? (double)(a->n_sampled - 1) / (double)a->steps : 0;
}

/* A prompt being read; what the context had already is no work and no progress. */
struct feeding {
    struct progress shown;
    const struct session *s;
};

static int on_feed(void *ctx, uint32_t done, uint32_t all) {
    struct feeding *f = ctx;
    uint32_t reused = session_stats(f->s)->reused_tokens;
    progress_show(&f->shown, done - reused, all - reused);
    return interrupt_asked();
}

/* State of one answer in the making. */
struct maker {
    struct engine *en;
    const struct generate_opts *o;
    struct answer *a;
    struct tok_stream stream;
    struct wbuf all; /* text generated so far, of which a->text has been given out */
};

/* Moves the text that may be seen from m->all to a->text and gives it out. final: nothing comes behind it. */
static void give_out(struct maker *m, bool final) {
    bool hit = false;
    size_t from = m->a->text.n;
    size_t to = stop_scan(m->o->stops, (const char *)m->all.p, m->all.n, from, &hit);
    if (hit)
        m->a->reason = STOP_STRING;
    else if (final)
        to = m->all.n;
    if (to == from)
        return;
    wbuf_put(&m->a->text, m->all.p + from, to - from);
    if (m->o->emit && m->o->emit(m->o->emit_ctx, (const char *)m->all.p + from, to - from) != 0)
        m->a->reason = STOP_OUTPUT;
}

/* What decoding the first token leaves out in front: the difference between mid-text and not. */
static void find_lead(struct maker *m, uint32_t id) {
    struct tok_stream s[2];
    struct wbuf text[2] = {0};
    for (int i = 0; i < 2; i++) {
        tok_stream_init(&s[i], m->en->tok, false, i == 1);
        tok_stream_put(&s[i], id, &text[i]);
    }
    size_t n = text[1].n > text[0].n ? text[1].n - text[0].n : 0;
    if (n && n < sizeof m->a->lead)
        memcpy(m->a->lead, text[1].p, n);
    wbuf_free(&text[0]);
    wbuf_free(&text[1]);
}

static bool ends_answer(const struct engine *en, uint32_t id) {
    for (int i = 0; i < en->n_stop; i++)
        if (en->stop[i] == id)
            return true;
    return false;
}

static void take_token(struct maker *m, uint32_t id) {
    struct answer *a = m->a;
    if (a->ids.n == 0 && !m->o->mid_text)
        find_lead(m, id);
    ids_push(&a->ids, id);
    if (id < tokenizer_n(m->en->tok)) /* models have padding ids that no tokenizer knows */
        tok_stream_put(&m->stream, id, &m->all);
    ids_push(&a->ends, m->stream.n_held ? UINT32_MAX : (uint32_t)m->all.n);
    give_out(m, false);
}

/* Room for the whole answer, so that the token loop does not allocate. */
static int reserve(struct maker *m, uint32_t n_tokens, struct err *e) {
    struct answer *a = m->a;
    wbuf_room(&m->all, 8 * (size_t)n_tokens + 256);
    wbuf_room(&a->text, 8 * (size_t)n_tokens + 256);
    for (uint32_t i = 0; i < n_tokens; i++) {
        ids_push(&a->ids, 0);
        ids_push(&a->ends, 0);
    }
    ids_clear(&a->ids);
    ids_clear(&a->ends);
    return m->all.bad || a->text.bad || a->ids.bad || a->ends.bad
               ? err_set(e, ERR_MEMORY, "out of memory for an answer")
               : 0;
}

static int token_loop(struct maker *m, double t0, struct err *e) {
    struct answer *a = m->a;
    struct session *s = m->en->session;
    double first = 0;
    int rc = 0;
    for (;;) {
        uint32_t id;
        if ((rc = session_sample(s, &m->o->sample, (uint32_t)a->ids.n, &id, e)) != 0)
            break;
        double now = clock_ms();
        if (a->n_sampled++ == 0) {
            first = now;
            a->ttft_ms = now - t0;
        }
        a->decode_ms = now - first;
        if (ends_answer(m->en, id)) {
            a->reason = STOP_EOS;
            break;
        }
        take_token(m, id);
        if (a->reason)
            break;
        uint32_t n_ctx;
        session_tokens(s, &n_ctx);
        if (m->o->max_tokens && a->ids.n >= m->o->max_tokens)
            a->reason = STOP_LENGTH;
        else if (n_ctx >= session_max_ctx(s))
            a->reason = STOP_CONTEXT;
        else if (interrupt_asked())
            a->reason = STOP_INTERRUPT;
        if (a->reason || (rc = session_advance(s, id, e)) != 0)
            break;
    }
    return rc;
}

int generate(struct engine *en, const struct ids *prompt, const struct generate_opts *o, struct answer *a,
             struct err *e) {
    struct maker m = {.en = en, .o = o, .a = a};
    uint32_t left = en->ctx > prompt->n ? en->ctx - (uint32_t)prompt->n : 0;
    uint32_t max = o->max_tokens && o->max_tokens <= left ? o->max_tokens : left + 1;
    answer_free(a);
    a->seed = o->sample.seed;
    a->n_prompt = (uint32_t)prompt->n;
    tok_stream_init(&m.stream, en->tok, false, o->mid_text);
    int rc = reserve(&m, max, e);
    if (rc != 0)
        goto out;

    double t0 = clock_ms();
    uint64_t steps = session_stats(en->session)->steps;
    struct feeding f = {.s = en->session};
    progress_start(&f.shown, "reading the prompt", "tokens");
    rc = session_feed(en->session, prompt->p, (uint32_t)prompt->n, on_feed, &f, e);
    a->n_reused = session_stats(en->session)->reused_tokens;
    progress_end(&f.shown, rc == 0 ? prompt->n - a->n_reused : 0);
    a->prefill_ms = clock_ms() - t0;
    if (rc != 0) {
        if (e->kind == ERR_NONE) { /* on_feed stopped it */
            a->reason = STOP_INTERRUPT;
            rc = 0;
        }
        goto out;
    }
    rc = token_loop(&m, t0, e);
    if (rc != 0 && e->kind == ERR_NONE) { /* Ctrl-C ended the wait for a cloud */
        a->reason = STOP_INTERRUPT;
        rc = 0;
    }
    a->steps = session_stats(en->session)->steps - steps;
    if (a->reason != STOP_STRING && a->reason != STOP_OUTPUT) {
        tok_stream_flush(&m.stream, &m.all);
        give_out(&m, true);
    }
    if (rc == 0 && (m.all.bad || a->text.bad || a->ids.bad || a->ends.bad))
        rc = err_set(e, ERR_MEMORY, "out of memory for an answer");
out:
    wbuf_free(&m.all);
    wipe(&m.stream, sizeof m.stream);
    return rc;
}
