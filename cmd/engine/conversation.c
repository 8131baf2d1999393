#include "cmd/engine/conversation.h"

#include "core/base/wipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void conversation_init(struct conversation *c) {
    *c = (struct conversation){0};
}

static void free_string(const char *s) {
    if (s)
        wipe_free((char *)s, strlen(s));
}

static void free_message(struct chat_message *m) {
    free_string(m->role);
    free_string(m->content);
    *m = (struct chat_message){0};
}

static void forget_answer(struct conversation *c) {
    wbuf_clear(&c->answer);
    ids_clear(&c->answer_ids);
    wipe(c->lead, sizeof c->lead);
}

/* Text and tokens may disagree after an error: the next prompt starts from nothing. */
static void forget_prompt(struct conversation *c) {
    wbuf_clear(&c->text);
    wbuf_clear(&c->from_user);
    ids_clear(&c->tokens);
    c->n_marks = 0;
    forget_answer(c);
}

void conversation_clear(struct conversation *c) {
    conversation_forget_aside(c);
    while (c->n)
        conversation_pop(c);
    forget_prompt(c);
}

void conversation_free(struct conversation *c) {
    conversation_clear(c);
    free(c->messages);
    wbuf_free(&c->text);
    wbuf_free(&c->from_user);
    ids_free(&c->tokens);
    free(c->marks);
    wbuf_free(&c->answer);
    ids_free(&c->answer_ids);
    conversation_init(c);
}

static int insert(struct conversation *c, size_t at, const char *role, const char *content, struct err *e) {
    struct chat_message m = {strdup(role), strdup(content)};
    if (!m.role || !m.content)
        goto fail;
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 16;
        struct chat_message *p = realloc(c->messages, cap * sizeof *p);
        if (!p)
            goto fail;
        c->messages = p;
        c->cap = cap;
    }
    memmove(c->messages + at + 1, c->messages + at, (c->n - at) * sizeof *c->messages);
    c->messages[at] = m;
    c->n++;
    return 0;
fail:
    free_message(&m);
    return err_set(e, ERR_MEMORY, "out of memory for a message");
}

static void take_out(struct conversation *c, size_t at) {
    free_message(&c->messages[at]);
    memmove(c->messages + at, c->messages + at + 1, (c->n - at - 1) * sizeof *c->messages);
    c->n--;
}

int conversation_add(struct conversation *c, const char *role, const char *content, struct err *e) {
    return insert(c, c->n, role, content, e);
}

static bool has_system(const struct conversation *c) {
    return c->n && strcmp(c->messages[0].role, "system") == 0;
}

int conversation_set_system(struct conversation *c, const char *content, struct err *e) {
    bool had = has_system(c);
    if (content && *content && insert(c, 0, "system", content, e) != 0)
        return -1;
    if (had)
        take_out(c, content && *content ? 1 : 0);
    return 0;
}

void conversation_pop(struct conversation *c) {
    if (c->n)
        take_out(c, c->n - 1);
}

bool conversation_set_aside(struct conversation *c) {
    size_t first = has_system(c), next = first + 1;
    while (next < c->n && strcmp(c->messages[next].role, "user") != 0)
        next++;
    if (next >= c->n)
        return false;
    for (size_t i = first; i < next; i++) {
        struct chat_message m = c->messages[first];
        size_t last = c->n + c->n_aside - 1;
        memmove(c->messages + first, c->messages + first + 1, (last - first) * sizeof m);
        c->messages[last] = m;
        c->n--;
        c->n_aside++;
    }
    return true;
}

void conversation_put_back(struct conversation *c) {
    size_t first = has_system(c);
    for (; c->n_aside; c->n_aside--, c->n++) {
        size_t last = c->n + c->n_aside - 1;
        struct chat_message m = c->messages[last];
        memmove(c->messages + first + 1, c->messages + first, (last - first) * sizeof m);
        c->messages[first] = m;
    }
}

void conversation_forget_aside(struct conversation *c) {
    for (; c->n_aside; c->n_aside--)
        free_message(&c->messages[c->n + c->n_aside - 1]);
}

bool conversation_drop_oldest(struct conversation *c) {
    bool any = conversation_set_aside(c);
    conversation_forget_aside(c);
    return any;
}

const char *conversation_last_role(const struct conversation *c) {
    return c->n ? c->messages[c->n - 1].role : "";
}

/* A text and which bytes of it came from messages. */
struct sided {
    const uint8_t *text, *from_user;
    size_t n;
};

/* Whether s holds head at `at`, coming from messages. */
static bool message_at(const struct sided *s, size_t at, const void *head, size_t n) {
    return at <= s->n && n <= s->n - at && memcmp(s->text + at, head, n) == 0 && !memchr(s->from_user + at, 0, n);
}

static int push_mark(struct conversation *c, size_t text, struct err *e) {
    if (c->n_marks == c->cap_marks) {
        size_t cap = c->cap_marks ? 2 * c->cap_marks : 16;
        struct conversation_mark *p = realloc(c->marks, cap * sizeof *p);
        if (!p)
            return err_set(e, ERR_MEMORY, "out of memory for a conversation");
        c->marks = p;
        c->cap_marks = cap;
    }
    c->marks[c->n_marks++] = (struct conversation_mark){.text = text, .tokens = c->tokens.n};
    return 0;
}

/* Bytes from the start in which s agrees with the last prompt. */
static size_t agrees(const struct conversation *c, const struct sided *s) {
    size_t n = 0;
    while (n < s->n && n < c->text.n && s->text[n] == c->text.p[n] && s->from_user[n] == c->from_user.p[n])
        n++;
    return n;
}

/* Cuts c->tokens back to those that stand for a beginning of the new text, the pending answer's included where the text
 * goes on with it. *done: bytes of text that the tokens cover. */
static int keep_common(struct conversation *c, const struct sided *s, size_t *done, struct err *e) {
    size_t common = agrees(c, s), at = c->text.n;
    if (common == c->text.n && c->answer_ids.n && c->answer.n) {
        size_t lead = strlen(c->lead);
        if (lead && s->n - at >= lead && memcmp(s->text + at, c->lead, lead) == 0 &&
            message_at(s, at + lead, c->answer.p, c->answer.n))
            at += lead;
        if (message_at(s, at, c->answer.p, c->answer.n)) {
            for (size_t i = 0; i < c->answer_ids.n; i++)
                ids_push(&c->tokens, c->answer_ids.p[i]);
            if (c->tokens.bad)
                return err_set(e, ERR_MEMORY, "out of memory for a conversation");
            *done = at + c->answer.n;
            return push_mark(c, *done, e);
        }
    }
    while (c->n_marks && c->marks[c->n_marks - 1].text > common)
        c->n_marks--;
    c->tokens.n = c->n_marks ? c->marks[c->n_marks - 1].tokens : 0;
    *done = c->n_marks ? c->marks[c->n_marks - 1].text : 0;
    return 0;
}

/* For each byte of p whether a message was its source. */
static int sides_of(const struct chat_prompt *p, struct wbuf *out, struct err *e) {
    for (size_t i = 0; i < p->n_spans; i++)
        for (size_t k = 0; k < p->spans[i].n; k++)
            wbuf_u8(out, p->spans[i].from_user);
    return out->bad ? err_set(e, ERR_MEMORY, "out of memory for a prompt") : 0;
}

/* Encodes text[from..n): the spans are cut to what lies behind from and counted from there. */
static int encode_rest(struct conversation *c, const struct prompt_maker *maker, const struct chat_prompt *p,
                       size_t from, struct err *e) {
    struct chat_span *rest = calloc(p->n_spans + 1, sizeof *rest);
    if (!rest)
        return err_set(e, ERR_MEMORY, "out of memory for a prompt");
    size_t n = 0;
    for (size_t i = 0; i < p->n_spans; i++) {
        struct chat_span s = p->spans[i];
        size_t end = s.off + s.n;
        if (end <= from)
            continue;
        s.off = s.off > from ? s.off - from : 0;
        s.n = end - from - s.off;
        rest[n++] = s;
    }
    int rc = maker->encode(maker->ctx, (const char *)p->text.p + from, rest, n, from == 0, &c->tokens, e);
    free(rest);
    return rc;
}

int conversation_prompt(struct conversation *c, const struct prompt_maker *maker, const struct ids **tokens,
                        struct err *e) {
    struct chat_prompt p = {0};
    struct wbuf sides = {0};
    size_t done = 0;
    int rc = -1;
    if (maker->render(maker->ctx, c->messages, c->n, &p, e) != 0 || sides_of(&p, &sides, e) != 0)
        goto out;
    if (p.text.bad || p.text.n != sides.n) {
        err_set(e, ERR_MEMORY, "out of memory for a prompt");
        goto out;
    }
    const struct sided s = {.text = p.text.p, .from_user = sides.p, .n = p.text.n};
    if (keep_common(c, &s, &done, e) != 0 || encode_rest(c, maker, &p, done, e) != 0)
        goto out;
    forget_answer(c);
    wbuf_clear(&c->text);
    wbuf_put(&c->text, p.text.p, p.text.n);
    wbuf_clear(&c->from_user);
    wbuf_put(&c->from_user, sides.p, sides.n);
    if (c->text.bad || c->from_user.bad || c->tokens.bad) {
        err_set(e, ERR_MEMORY, "out of memory for a prompt");
        goto out;
    }
    *tokens = &c->tokens;
    rc = 0;
out:
    if (rc != 0)
        forget_prompt(c);
    chat_prompt_free(&p);
    wbuf_free(&sides);
    return rc;
}

int conversation_answer(struct conversation *c, const char *content, size_t n_text, const uint32_t *ids, size_t n_ids,
                        const char *lead, struct err *e) {
    forget_answer(c);
    if (conversation_add(c, "assistant", content, e) != 0)
        return -1;
    wbuf_put(&c->answer, content, n_text);
    for (size_t i = 0; i < n_ids; i++)
        ids_push(&c->answer_ids, ids[i]);
    snprintf(c->lead, sizeof c->lead, "%s", lead);
    if (c->answer.bad || c->answer_ids.bad)
        forget_answer(c); /* costs the reuse only */
    return 0;
}
