#include "cmd/prompt.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static int render_raw(const struct chat_message *m, size_t n, struct chat_prompt *out, struct err *e) {
    for (size_t i = 0; i < n; i++)
        wbuf_str(&out->text, m[i].content);
    out->spans = calloc(1, sizeof *out->spans);
    if (!out->spans || out->text.bad)
        return err_set(e, ERR_MEMORY, "out of memory for a prompt");
    out->spans[0] = (struct chat_span){.n = out->text.n, .from_user = true};
    out->n_spans = out->cap_spans = 1;
    return 0;
}

static int render(void *ctx, const struct chat_message *m, size_t n, struct chat_prompt *out, struct err *e) {
    const struct prompt_source *s = ctx;
    if (!s->tmpl)
        return render_raw(m, n, out, e);
    const struct chat_vars v = {.bos_token = s->bos,
                                .eos_token = s->eos,
                                .add_generation_prompt = true,
                                .date = s->date,
                                .extra_json = s->extra_json};
    return chat_template_render(s->tmpl, m, n, &v, out, e);
}

static bool prints_bos(const struct prompt_source *s, const char *text, const struct chat_span *span) {
    size_t n = s->bos ? strlen(s->bos) : 0;
    return n && !span->from_user && span->n >= n && memcmp(text + span->off, s->bos, n) == 0;
}

static int encode(void *ctx, const char *text, const struct chat_span *spans, size_t n_spans, bool at_start,
                  struct ids *out, struct err *e) {
    const struct prompt_source *s = ctx;
    int flags = at_start ? 0 : TOK_CONTINUE;
    if (at_start && tokenizer_add_bos(s->tok) && !(n_spans && prints_bos(s, text, &spans[0])))
        flags |= TOK_BOS;
    if (n_spans == 0 && at_start)
        return tokenizer_encode(s->tok, "", 0, flags, out, e);
    for (size_t i = 0; i < n_spans;) {
        size_t off = spans[i].off, n = 0;
        bool user = spans[i].from_user;
        for (; i < n_spans && spans[i].from_user == user; i++)
            n += spans[i].n;
        if (tokenizer_encode(s->tok, text + off, n, flags | (!user || s->special ? TOK_SPECIAL : 0), out, e) != 0)
            return -1;
        flags = TOK_CONTINUE;
    }
    return out->bad ? err_set(e, ERR_MEMORY, "out of memory for a prompt") : 0;
}

void prompt_maker_init(struct prompt_maker *m, struct prompt_source *src) {
    /* Once per run: a prompt that changed at midnight would have to be computed anew. */
    time_t now = time(NULL);
    struct tm tm;
    if (!localtime_r(&now, &tm) || strftime(src->date, sizeof src->date, "%d %b %Y", &tm) == 0)
        src->date[0] = '\0';
    *m = (struct prompt_maker){.render = render, .encode = encode, .ctx = src};
}
