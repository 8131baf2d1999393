/* What is said of an answer beside its text: --stats and --json. */
#include "cmd/chat/chat.h"
#include "cmd/json.h"
#include "cmd/term.h"
#include "core/base/wipe.h"

#include <stdio.h>
#include <string.h>

static double per_second(double n, double ms) {
    return ms > 0 ? n / ms * 1e3 : 0;
}

static void print_cloud(const struct chat *c) {
    struct remote_info i;
    char up[16], down[16], pin[PIN_TEXT];
    const struct session_stats *s = session_stats(c->engine.session);
    remote_middle_info(c->engine.middle, &i);
    pin_format(&i.pin, pin);
    term_size((double)i.bytes_up, up);
    term_size((double)i.bytes_down, down);
    fprintf(stderr, "cloud    %s, %s, pin %s\n", i.address, i.backend, pin);
    fprintf(stderr, "link     round trip %.1f ms; %s up, %s down in codec %s; %s\n", i.rtt_ms, up, down,
            codec_name(c->engine.codec), i.suite);
    if (s->windows)
        fprintf(stderr, "guesses  %llu sent, %llu came true; %.1f ms of guessing\n", (unsigned long long)s->nodes_sent,
                (unsigned long long)s->hits, s->draft_ms);
    if (c->engine.guesser) {
        struct guesser_stats g;
        guesser_stats(c->engine.guesser, &g);
        fprintf(stderr, "draft    %llu passes in %.0f ms, lately of %.1f ms; %d for a token pay; %s\n",
                (unsigned long long)g.passes, g.ms, g.pass_ms, g.effort,
                g.same_tokenizer ? "same tokenizer" : "by text");
    }
    if (c->engine.pad_rows)
        fprintf(stderr, "padding  windows of %d rows; %llu for the clock alone, and %llu ticks without one\n",
                c->engine.pad_rows, (unsigned long long)s->ticks_idle, (unsigned long long)s->ticks_missed);
    if (c->learned.store) {
        term_size((double)draft_store_bytes(c->learned.store), up);
        fprintf(stderr, "store    %llu tokens learned, %s\n", (unsigned long long)draft_store_tokens(c->learned.store),
                up);
    }
    if (s->recoveries)
        fprintf(stderr, "lost     %u time%s the cloud, for %.1f s in all; %llu positions were computed again\n",
                s->recoveries, s->recoveries == 1 ? "" : "s", i.lost_ms / 1e3, (unsigned long long)s->replayed_tokens);
}

void chat_print_stats(const struct chat *c) {
    const struct answer *a = &c->answer;
    const struct session_stats *s = session_stats(c->engine.session);
    uint32_t fresh = a->n_prompt - a->n_reused, n_context;
    session_tokens(c->engine.session, &n_context);
    fprintf(stderr, "prompt   %u tokens, %u of them computed before; the other %u in %.0f ms, %.1f tok/s\n",
            a->n_prompt, a->n_reused, fresh, a->prefill_ms, per_second(fresh, a->prefill_ms));
    fprintf(stderr,
            "answer   %zu tokens, first after %.0f ms, then %.1f tok/s in %llu steps of %.2f tokens; ended by: %s\n",
            a->ids.n, a->ttft_ms, answer_tok_s(a), (unsigned long long)a->steps, answer_tokens_per_step(a),
            stop_reason_name(a->reason));
    fprintf(stderr, "context  %u of %u positions\n", n_context, c->engine.ctx);
    fprintf(stderr,
            "time     front %.0f ms, middle %.0f ms, back %.0f ms, head %.0f ms, sampling %.0f ms; loading %.0f ms\n",
            s->front_ms, s->middle_ms, s->back_ms, s->head_ms, s->sample_ms, c->engine.load_ms);
    if (c->engine.tunnel)
        print_cloud(c);
    if (c->o->settings.temperature > 0)
        fprintf(stderr, "seed     %llu\n", (unsigned long long)a->seed);
}

static bool add_cloud(const struct chat *c, yyjson_mut_doc *d, yyjson_mut_val *o) {
    struct remote_info i;
    if (!c->engine.tunnel)
        return yyjson_mut_obj_add_null(d, o, "rtt_ms");
    const struct session_stats *s = session_stats(c->engine.session);
    remote_middle_info(c->engine.middle, &i);
    return (i.rtt_ms > 0 ? yyjson_mut_obj_add_real(d, o, "rtt_ms", i.rtt_ms)
                         : yyjson_mut_obj_add_null(d, o, "rtt_ms")) &&
           yyjson_mut_obj_add_uint(d, o, "bytes_up", i.bytes_up) &&
           yyjson_mut_obj_add_uint(d, o, "bytes_down", i.bytes_down) &&
           yyjson_mut_obj_add_uint(d, o, "recoveries", s->recoveries) &&
           yyjson_mut_obj_add_uint(d, o, "guesses_sent", s->nodes_sent) &&
           yyjson_mut_obj_add_uint(d, o, "guesses_right", s->hits) &&
           yyjson_mut_obj_add_real(d, o, "draft_ms", s->draft_ms) &&
           (c->learned.store ? yyjson_mut_obj_add_uint(d, o, "store_tokens", draft_store_tokens(c->learned.store))
                             : yyjson_mut_obj_add_null(d, o, "store_tokens"));
}

static bool fill(const struct chat *c, yyjson_mut_doc *d) {
    const struct answer *a = &c->answer;
    yyjson_mut_val *o = yyjson_mut_obj(d), *tokens = yyjson_mut_arr(d);
    yyjson_mut_doc_set_root(d, o);
    bool ok = yyjson_mut_obj_add_strn(d, o, "text", a->text.n ? (const char *)a->text.p : "", a->text.n);
    for (size_t i = 0; i < a->ids.n && ok; i++)
        ok = yyjson_mut_arr_add_uint(d, tokens, a->ids.p[i]);
    ok = ok && yyjson_mut_obj_add_val(d, o, "tokens", tokens) &&
         yyjson_mut_obj_add_uint(d, o, "prompt_tokens", a->n_prompt) &&
         yyjson_mut_obj_add_uint(d, o, "reused_tokens", a->n_reused) &&
         yyjson_mut_obj_add_uint(d, o, "steps", a->steps) &&
         yyjson_mut_obj_add_real(d, o, "tokens_per_step", answer_tokens_per_step(a)) &&
         yyjson_mut_obj_add_real(d, o, "tok_s", answer_tok_s(a)) &&
         yyjson_mut_obj_add_real(d, o, "ttft_ms", a->ttft_ms) &&
         yyjson_mut_obj_add_real(d, o, "prefill_ms", a->prefill_ms) && add_cloud(c, d, o) &&
         yyjson_mut_obj_add_str(d, o, "stop_reason", stop_reason_name(a->reason));
    if (c->o->settings.temperature > 0)
        return ok && yyjson_mut_obj_add_uint(d, o, "seed", a->seed);
    return ok && yyjson_mut_obj_add_null(d, o, "seed");
}

int chat_print_json(struct chat *c, struct err *e) {
    yyjson_mut_doc *d = yyjson_mut_doc_new(&json_wiping);
    char *text = NULL;
    size_t n = 0;
    int rc = -1;
    yyjson_write_err why = {.code = YYJSON_WRITE_ERROR_MEMORY_ALLOCATION};
    if (d && fill(c, d))
        text = yyjson_mut_write_opts(d, YYJSON_WRITE_NEWLINE_AT_END, &json_wiping, &n, &why);
    if (!text) {
        json_write_error(&why, "the answer", e);
        goto out;
    }
    (void)chat_emit_plain(c, text, n); /* the caller looks at output_errno */
    rc = 0;
out:
    if (text)
        json_wiping.free(NULL, text);
    yyjson_mut_doc_free(d);
    return rc;
}
