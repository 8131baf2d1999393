/* One turn of a chat: settings into sampling parameters, messages into a prompt that fits, the answer into the
 * conversation. */
#include "cmd/chat/chat.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/wipe.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* ID=B with B a number, or "ban". */
static int parse_bias(const char *text, int vocab, struct logit_bias *b, struct err *e) {
    char *end;
    unsigned long id = strtoul(text, &end, 10);
    if (end == text || *end != '=' || text[0] < '0' || text[0] > '9')
        return err_set(e, ERR_USAGE, "--logit-bias: '%.60s' is not ID=B, such as 42=-1.5 or 42=ban", text);
    if (id >= (unsigned long)vocab)
        return err_set(e, ERR_USAGE, "--logit-bias: token %lu is not in the model's vocabulary of %d", id, vocab);
    const char *value = end + 1;
    *b = (struct logit_bias){.token = (uint32_t)id, .bias = -INFINITY};
    if (strcmp(value, "ban") == 0)
        return 0;
    double v = strtod(value, &end);
    if (end == value || *end != '\0' || !(fabs(v) <= 1000))
        return err_set(e, ERR_USAGE, "--logit-bias: '%.60s' is not a number from -1000 to 1000, nor 'ban'", value);
    b->bias = (float)v;
    return 0;
}

static int sampling(struct chat *c, struct sample_params *p, struct err *e) {
    const struct chat_settings *s = &c->o->settings;
    int vocab = c->engine.config->vocab;
    sample_params_default(p);
    p->temperature = (float)s->temperature;
    p->top_k = s->top_k;
    p->top_p = (float)s->top_p;
    p->min_p = (float)s->min_p;
    p->repetition_penalty = (float)s->repeat_penalty;
    p->penalty_window = s->repeat_window;
    p->presence_penalty = (float)s->presence_penalty;
    p->frequency_penalty = (float)s->frequency_penalty;
    p->seed = s->seed;
    if (s->bias.n > SAMPLE_MAX_BIAS)
        return err_set(e, ERR_USAGE, "--logit-bias was given %d times; at most %d", s->bias.n, SAMPLE_MAX_BIAS);
    for (int i = 0; i < s->bias.n; i++)
        if (parse_bias(s->bias.p[i], vocab, &c->bias[i], e) != 0)
            return -1;
    p->bias = c->bias;
    p->n_bias = s->bias.n;
    for (int i = 0; i < s->stop.n; i++)
        if (!s->stop.p[i][0])
            return err_set(e, ERR_USAGE, "--stop: an empty string would stop every answer at once");
    return sample_params_check(p, vocab, e);
}

int chat_check_settings(struct chat *c, struct err *e) {
    struct sample_params p;
    return sampling(c, &p, e);
}

/* Positions to have left for an answer when older turns can be forgotten for it. */
static uint32_t room_for_answer(const struct chat *c) {
    uint32_t room = c->engine.ctx / 4, wanted = (uint32_t)c->o->settings.max_tokens;
    return wanted && wanted < room ? wanted : room;
}

/* Sets turns aside until the prompt fits. *n_turns: how many. */
static int fit_prompt(struct chat *c, const struct ids **prompt, int *n_turns, struct err *e) {
    uint32_t ctx = c->engine.ctx, room = room_for_answer(c);
    for (*n_turns = 0;; ++*n_turns) {
        if (conversation_prompt(&c->conv, &c->maker, prompt, e) != 0)
            return -1;
        size_t n = (*prompt)->n;
        if (n == 0)
            return err_set(e, ERR_USAGE, "the prompt is empty, and this model has no token to start from");
        if (n < ctx && ctx - n >= room)
            return 0;
        if (c->o->on_full == FULL_DROP_OLDEST && conversation_set_aside(&c->conv))
            continue;
        if (n < ctx)
            return 0;
        return err_set(
            e, ERR_USAGE,
            "the context is full: the prompt has %zu tokens%s, --ctx gives %u (the model was made for %d) and one at "
            "least is for the answer",
            n, *n_turns ? " even without the older turns" : "", ctx, c->engine.config->max_ctx);
    }
}

int chat_prompt(struct chat *c, const struct ids **prompt, struct err *e) {
    int n_turns;
    if (fit_prompt(c, prompt, &n_turns, e) != 0) {
        conversation_put_back(&c->conv);
        return -1;
    }
    conversation_forget_aside(&c->conv);
    if (n_turns)
        term_note("the context of %u tokens was full: the oldest %d turn%s forgotten", c->engine.ctx, n_turns,
                  n_turns == 1 ? " was" : "s were");
    return 0;
}

static int settle_seed(const struct chat *c, struct sample_params *p, struct err *e) {
    if (c->seed_given || p->temperature <= 0)
        return 0;
    /* 53 bits: any JSON reader can hold it, so that a run can be repeated from what --json printed. */
    if (getrandom(&p->seed, sizeof p->seed, 0) != sizeof p->seed)
        return err_set(e, ERR_IO, "the system gave no random number for a seed; give one with --seed");
    p->seed >>= 11;
    return 0;
}

int chat_answer(struct chat *c, const struct ids *prompt, int (*emit)(void *ctx, const char *text, size_t n),
                struct err *e) {
    struct answer *a = &c->answer;
    struct generate_opts o = {.max_tokens = (uint32_t)c->o->settings.max_tokens,
                              .stops = &c->o->settings.stop,
                              .mid_text = c->o->raw,
                              .emit = emit,
                              .emit_ctx = c};
    if (sampling(c, &o.sample, e) != 0 || settle_seed(c, &o.sample, e) != 0)
        return -1;
    int rc = generate(&c->engine, prompt, &o, a, e);
    size_t n_shown;
    learned_turn(&c->learned, c->engine.drafter, prompt, a->ids.p, answer_whole_ids(a, &n_shown));
    if (a->reason == STOP_OUTPUT && !c->output_errno)
        a->reason = STOP_INTERRUPT;
    if (a->text.n) {
        size_t n_text, n_ids = answer_whole_ids(a, &n_text);
        /* A NUL cannot stand in a message: the text ends before it. */
        const char *text = wbuf_cstr(&a->text);
        if (strlen(text) < n_text)
            n_text = n_ids = 0;
        struct err *mine = rc == 0 ? e : NULL;
        if (conversation_answer(&c->conv, text, n_text, a->ids.p, n_ids, a->lead, mine) != 0)
            rc = -1;
    }
    return rc;
}

/* Not through stdio, which loses its place when a signal comes in a blocked write. */
static int write_out(struct chat *c, const char *text, size_t n) {
    while (n) {
        ssize_t k = write(STDOUT_FILENO, text, n);
        if (k < 0 && errno != EINTR) {
            c->output_errno = errno;
            return -1;
        }
        if (k > 0) {
            text += k;
            n -= (size_t)k;
        }
        if (n && interrupt_asked()) { /* writes are cut short by signals only */
            c->output_cut = true;
            return -1;
        }
    }
    return 0;
}

int chat_emit_plain(void *ctx, const char *text, size_t n) {
    return write_out(ctx, text, n);
}

int chat_emit_terminal(void *ctx, const char *text, size_t n) {
    char block[512];
    int rc = 0;
    for (size_t i = 0, used = 0; i < n && rc == 0; i++) {
        unsigned char b = (unsigned char)text[i];
        /* C0 controls and DEL are single bytes; C1 controls are C2 80 .. C2 9F. */
        bool c1 = b == 0xC2 && i + 1 < n && (unsigned char)text[i + 1] < 0xA0;
        bool control = (b < 0x20 && b != '\n' && b != '\t') || b == 0x7F || c1;
        block[used++] = control ? '?' : text[i];
        i += c1;
        if (used == sizeof block || i + 1 >= n) {
            rc = write_out(ctx, block, used);
            used = 0;
        }
    }
    wipe(block, sizeof block);
    return rc;
}
