#include "cmd/engine/prompt.h"

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
    if (chat_template_render(s->tmpl, m, n, &v, out, e) == 0)
        return 0;
    /* raise_exception: the template's own words, which do not say who speaks. */
    return e->kind == ERR_USAGE ? err_wrap(e, "the model's chat template refuses this conversation") : -1;
}

static bool prints_bos(const struct prompt_source *s, const char *text, const struct chat_span *span) {
    size_t n = s->bos ? strlen(s->bos) : 0;
    return n && !span->from_user && span->n >= n && memcmp(text + span->off, s->bos, n) == 0;
}

/* The text is encoded as a whole, as the tokenizer would encode any other, only that what came from messages may not be
 * read as special tokens. */
static int encode(void *ctx, const char *text, const struct chat_span *spans, size_t n_spans, bool at_start,
                  struct ids *out, struct err *e) {
    const struct prompt_source *s = ctx;
    int flags = at_start ? 0 : TOK_CONTINUE;
    size_t n = n_spans ? spans[n_spans - 1].off + spans[n_spans - 1].n : 0, n_plain = 0;
    if (at_start && tokenizer_add_bos(s->tok) && !(n_spans && prints_bos(s, text, &spans[0])))
        flags |= TOK_BOS;
    struct tok_plain *plain = calloc(n_spans + 1, sizeof *plain);
    if (!plain)
        return err_set(e, ERR_MEMORY, "out of memory for a prompt");
    for (size_t i = 0; i < n_spans; i++) {
        if (!spans[i].from_user || s->special || !spans[i].n)
            continue;
        struct tok_plain *last = n_plain ? &plain[n_plain - 1] : NULL;
        if (last && last->off + last->n == spans[i].off)
            last->n += spans[i].n;
        else
            plain[n_plain++] = (struct tok_plain){.off = spans[i].off, .n = spans[i].n};
    }
    int rc = tokenizer_encode_mixed(s->tok, text, n, plain, n_plain, flags, out, e);
    free(plain);
    return rc;
}

void prompt_maker_init(struct prompt_maker *m, struct prompt_source *src) {
    /* Once per run: a prompt that changed at midnight would have to be computed anew. */
    time_t now = time(NULL);
    struct tm tm;
    if (!localtime_r(&now, &tm) || strftime(src->date, sizeof src->date, "%d %b %Y", &tm) == 0)
        src->date[0] = '\0';
    *m = (struct prompt_maker){.render = render, .encode = encode, .ctx = src};
}
