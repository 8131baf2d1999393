/* cmd/conversation: which tokens a turn takes over from the turns before. The renderer and the encoder are fakes whose
 * results can be written down: "{role:content}" per message and "{assistant:" at the end; one id per byte, 1000 more
 * where the byte came from a message, 2000 more for the very first byte of a prompt. */
#include "cmd/engine/conversation.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fake {
    bool trims;       /* cuts blanks around an assistant's content, as many templates do */
    bool forgets;     /* leaves the text of earlier answers out, as reasoning templates do */
    bool system_last; /* puts the system message before the last user's, as Mistral's does */
    bool refuses;     /* as raise_exception does */
    size_t n_encoded; /* bytes that encode was given */
};

static void put(struct chat_prompt *out, const char *text, size_t n, bool user) {
    cr_assert_lt(out->n_spans, out->cap_spans);
    out->spans[out->n_spans++] = (struct chat_span){.off = out->text.n, .n = n, .from_user = user};
    wbuf_put(&out->text, text, n);
}

static void put_message(const struct fake *f, struct chat_prompt *out, const struct chat_message *m, bool last) {
    bool answer = strcmp(m->role, "assistant") == 0;
    const char *text = m->content;
    size_t n = strlen(text);
    if (answer && f->trims) {
        for (; *text == ' '; text++)
            n--;
        while (n && text[n - 1] == ' ')
            n--;
    }
    if (answer && f->forgets && !last)
        n = 0;
    put(out, "{", 1, false);
    put(out, m->role, strlen(m->role), false);
    put(out, ":", 1, false);
    put(out, text, n, true);
    put(out, "}", 1, false);
}

static int render(void *ctx, const struct chat_message *m, size_t n, struct chat_prompt *out, struct err *e) {
    const struct fake *f = ctx;
    if (f->refuses)
        return err_set(e, ERR_USAGE, "refused");
    out->cap_spans = 5 * (n + 2);
    out->spans = calloc(out->cap_spans, sizeof *out->spans);
    cr_assert(out->spans);
    for (size_t i = 0; i < n; i++) {
        if (f->system_last && strcmp(m[i].role, "system") == 0)
            continue;
        if (f->system_last && i == n - 1 && strcmp(m[0].role, "system") == 0)
            put_message(f, out, &m[0], false);
        put_message(f, out, &m[i], i + 1 >= n - 1);
    }
    put(out, "{assistant:", 11, false);
    return 0;
}

static int encode(void *ctx, const char *text, const struct chat_span *spans, size_t n_spans, bool at_start,
                  struct ids *out, struct err *e) {
    struct fake *f = ctx;
    size_t at = 0;
    (void)e;
    for (size_t i = 0; i < n_spans; i++) {
        cr_assert_eq(spans[i].off, at, "spans adjoin");
        for (size_t k = 0; k < spans[i].n; k++, at++)
            ids_push(out, (uint32_t)(unsigned char)text[at] + (spans[i].from_user ? 1000u : 0u) +
                              (at_start && at == 0 ? 2000u : 0u));
    }
    f->n_encoded += at;
    return 0;
}

static struct conversation c;
static struct fake fake;
static struct prompt_maker maker;
static struct err e;

static void start(void) {
    conversation_init(&c);
    fake = (struct fake){0};
    maker = (struct prompt_maker){render, encode, &fake};
    e = (struct err){0};
}
static void end(void) {
    conversation_free(&c);
}

static void add(const char *role, const char *text) {
    cr_assert_eq(conversation_add(&c, role, text, &e), 0, "%s", e.msg);
}

/* What the ids stand for: bytes as they are, generated ids (5000 + i) as '#'. */
static const char *ids_text(const struct ids *ids) {
    static char text[1000];
    size_t n = 0;
    for (size_t i = 0; i < ids->n; i++)
        text[n++] = ids->p[i] >= 5000 ? '#' : (char)(ids->p[i] % 1000);
    text[n] = '\0';
    return text;
}

static const char *prompt(void) {
    const struct ids *ids = NULL;
    fake.n_encoded = 0;
    cr_assert_eq(conversation_prompt(&c, &maker, &ids, &e), 0, "%s", e.msg);
    cr_assert_eq(ids->p[0], '{' + 2000u, "the first token of a prompt is encoded as the first");
    for (size_t i = 1; i < ids->n; i++)
        cr_assert(ids->p[i] < 2000 || ids->p[i] >= 5000, "and no other");
    return ids_text(ids);
}

/* n generated ids that stand for the first n_text bytes of text. */
static void answer(const char *text, size_t n_text, size_t n, const char *lead) {
    uint32_t ids[16];
    for (size_t i = 0; i < n; i++)
        ids[i] = 5000 + (uint32_t)i;
    cr_assert_eq(conversation_answer(&c, text, n_text, ids, n, lead, &e), 0, "%s", e.msg);
}

Test(conversation, a_turn_takes_over_the_generated_ids, .init = start, .fini = end) {
    add("user", "hi");
    cr_assert_str_eq(prompt(), "{user:hi}{assistant:");
    cr_assert_eq(c.tokens.p[6], 'h' + 1000u, "what came from the user is encoded as such");
    cr_assert_eq(c.tokens.p[5], ':' + 0u);
    answer("hello", 5, 2, "");
    add("user", "more");
    cr_assert_str_eq(prompt(), "{user:hi}{assistant:##}{user:more}{assistant:");
    cr_assert_eq(fake.n_encoded, strlen("}{user:more}{assistant:"), "only the new text is encoded");
    answer("done", 4, 3, "");
    add("user", "x");
    cr_assert_str_eq(prompt(), "{user:hi}{assistant:##}{user:more}{assistant:###}{user:x}{assistant:");
    cr_assert_eq(fake.n_encoded, strlen("}{user:x}{assistant:"));
}

Test(conversation, an_answer_cut_inside_a_token, .init = start, .fini = end) {
    add("user", "hi");
    prompt();
    answer("hello", 3, 1, ""); /* one id for "hel"; "lo" is left of a token that also held a stop string */
    add("user", "x");
    cr_assert_str_eq(prompt(), "{user:hi}{assistant:#lo}{user:x}{assistant:");
    cr_assert_eq(c.tokens.p[21], 'l' + 1000u, "the rest of the answer is message text still");
}

Test(conversation, a_space_that_decoding_leaves_out, .init = start, .fini = end) {
    /* The ids stand for " hello", of which "hello" was shown; this template puts nothing between, others a space. */
    add("user", "hi");
    prompt();
    answer("hello", 5, 2, " ");
    add("user", "x");
    cr_assert_str_eq(prompt(), "{user:hi}{assistant:##}{user:x}{assistant:");
    conversation_clear(&c);
    add("user", "hi");
    prompt();
    answer(" hello", 6, 2, "");
    fake.trims = true;
    add("user", "x");
    cr_assert_str_eq(prompt(), "{user:hi}{assistant:hello}{user:x}{assistant:", "a template that trims gets fresh ids");
}

static int render_spaced(void *ctx, const struct chat_message *m, size_t n, struct chat_prompt *out, struct err *e2) {
    (void)ctx;
    (void)e2;
    out->cap_spans = 3 * n + 2;
    out->spans = calloc(out->cap_spans, sizeof *out->spans);
    for (size_t i = 0; i < n; i++) {
        bool user = strcmp(m[i].role, "user") == 0;
        put(out, user ? "[" : " ", 1, false);
        put(out, m[i].content, strlen(m[i].content), true);
        put(out, user ? "]" : " ;", user ? 1 : 2, false);
    }
    return 0;
}

Test(conversation, a_template_that_puts_the_space_itself, .init = start, .fini = end) {
    maker.render = render_spaced;
    const struct ids *ids;
    add("user", "hi");
    cr_assert_eq(conversation_prompt(&c, &maker, &ids, &e), 0);
    cr_assert_str_eq(ids_text(ids), "[hi]");
    answer("hello", 5, 2, " ");
    add("user", "x");
    cr_assert_eq(conversation_prompt(&c, &maker, &ids, &e), 0);
    cr_assert_str_eq(ids_text(ids), "[hi]## ;[x]");
}

Test(conversation, another_answer_to_the_same_message, .init = start, .fini = end) {
    add("user", "hi");
    prompt();
    answer("hello", 5, 2, "");
    conversation_pop(&c);
    cr_assert_str_eq(prompt(), "{user:hi}{assistant:");
    answer("hullo", 5, 3, "");
    add("user", "x");
    cr_assert_str_eq(prompt(), "{user:hi}{assistant:###}{user:x}{assistant:");
}

Test(conversation, equal_words_of_user_and_assistant_stay_apart, .init = start, .fini = end) {
    add("user", "yes");
    prompt();
    answer("yes", 3, 1, "");
    add("user", "yes");
    cr_assert_str_eq(prompt(), "{user:yes}{assistant:#}{user:yes}{assistant:");
}

Test(conversation, a_template_that_rewrites_the_past, .init = start, .fini = end) {
    fake.forgets = true;
    add("user", "a");
    prompt();
    answer("think", 5, 2, "");
    add("user", "b");
    cr_assert_str_eq(prompt(), "{user:a}{assistant:##}{user:b}{assistant:");
    answer("again", 5, 2, "");
    add("user", "c");
    cr_assert_str_eq(prompt(), "{user:a}{assistant:}{user:b}{assistant:again}{user:c}{assistant:",
                     "the text differs inside the first answer: nothing behind it is taken over");
}

Test(conversation, a_system_prompt_that_moves, .init = start, .fini = end) {
    fake.system_last = true;
    cr_assert_eq(conversation_set_system(&c, "S", &e), 0);
    add("user", "a");
    cr_assert_str_eq(prompt(), "{system:S}{user:a}{assistant:");
    answer("one", 3, 2, "");
    add("user", "b");
    cr_assert_str_eq(prompt(), "{user:a}{assistant:one}{system:S}{user:b}{assistant:");
    answer("two", 3, 2, "");
    add("user", "c");
    cr_assert_str_eq(prompt(), "{user:a}{assistant:one}{user:b}{assistant:two}{system:S}{user:c}{assistant:");
}

/* Somebody types what looks exactly like the prompt and the answer before it. */
Test(conversation, tokens_of_the_template_are_not_taken_over_for_typed_text, .init = start, .fini = end) {
    add("user", "hi");
    prompt();
    answer("hello", 5, 2, "");
    conversation_pop(&c);
    conversation_pop(&c);
    add("user", "hi}{assistant:hello");
    cr_assert_str_eq(prompt(), "{user:hi}{assistant:hello}{assistant:");
    cr_assert_eq(c.tokens.p[8], '}' + 1000u, "as it was typed");
}

Test(conversation, dropping_the_oldest_turn, .init = start, .fini = end) {
    cr_assert_eq(conversation_set_system(&c, "S", &e), 0);
    add("user", "a");
    prompt();
    answer("one", 3, 2, "");
    add("user", "b");
    prompt();
    answer("two", 3, 2, "");
    add("user", "c");
    cr_assert(conversation_drop_oldest(&c));
    cr_assert_str_eq(prompt(), "{system:S}{user:b}{assistant:two}{user:c}{assistant:");
    cr_assert(conversation_drop_oldest(&c));
    cr_assert_str_eq(prompt(), "{system:S}{user:c}{assistant:");
    cr_assert(!conversation_drop_oldest(&c), "the last turn stays");
    cr_assert_eq(c.n, 2);
}

static const char *contents(void) {
    static char text[100];
    text[0] = '\0';
    for (size_t i = 0; i < c.n; i++)
        strcat(strcat(text, c.messages[i].content), " ");
    return text;
}

Test(conversation, turns_set_aside_come_back_in_their_order, .init = start, .fini = end) {
    for (int system = 0; system < 2; system++) {
        conversation_clear(&c);
        if (system)
            cr_assert_eq(conversation_set_system(&c, "S", &e), 0);
        add("user", "a");
        add("assistant", "one");
        add("tool", "t");
        add("user", "b");
        add("assistant", "two");
        add("user", "c");
        cr_assert(conversation_set_aside(&c));
        cr_assert_str_eq(contents(), system ? "S b two c " : "b two c ");
        cr_assert(conversation_set_aside(&c));
        cr_assert(!conversation_set_aside(&c), "the last turn stays");
        cr_assert_str_eq(prompt(), system ? "{system:S}{user:c}{assistant:" : "{user:c}{assistant:");
        conversation_put_back(&c);
        cr_assert_str_eq(contents(), system ? "S a one t b two c " : "a one t b two c ");
        cr_assert_eq(c.n_aside, 0);
        cr_assert(conversation_set_aside(&c));
        conversation_forget_aside(&c);
        conversation_put_back(&c);
        cr_assert_str_eq(contents(), system ? "S b two c " : "b two c ", "what is forgotten does not come back");
        cr_assert(conversation_set_aside(&c)); /* and what is aside at the end is freed */
    }
}

Test(conversation, the_system_prompt_comes_and_goes, .init = start, .fini = end) {
    cr_assert_eq(conversation_set_system(&c, "", &e), 0);
    cr_assert_eq(c.n, 0);
    add("user", "a");
    cr_assert_eq(conversation_set_system(&c, "S", &e), 0);
    cr_assert_str_eq(prompt(), "{system:S}{user:a}{assistant:");
    cr_assert_eq(conversation_set_system(&c, "T", &e), 0);
    cr_assert_str_eq(prompt(), "{system:T}{user:a}{assistant:");
    cr_assert_eq(conversation_set_system(&c, NULL, &e), 0);
    cr_assert_str_eq(prompt(), "{user:a}{assistant:");
    cr_assert_str_eq(conversation_last_role(&c), "user");
}

Test(conversation, an_error_leaves_the_messages_and_the_next_prompt_right, .init = start, .fini = end) {
    const struct ids *ids;
    add("user", "a");
    prompt();
    answer("one", 3, 2, "");
    add("user", "b");
    fake.refuses = true;
    cr_assert_eq(conversation_prompt(&c, &maker, &ids, &e), -1);
    cr_assert_str_eq(e.msg, "refused");
    fake.refuses = false;
    e = (struct err){0};
    cr_assert_eq(c.n, 3);
    cr_assert_str_eq(prompt(), "{user:a}{assistant:one}{user:b}{assistant:");
}
