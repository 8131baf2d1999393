/* The tiny model's tokenizer and chat template against transformers: text to ids, ids to text, a conversation to a
 * prompt. */
#include "core/base/file.h"
#include "tok/template.h"
#include "tok/tokenizer.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

static yyjson_doc *read_known(void) {
    struct err e = {0};
    char *text;
    size_t n;
    cr_assert_eq(file_read("test/models/tiny/golden.json", 1 << 20, &text, &n, &e), 0, "%s", e.msg);
    yyjson_doc *doc = yyjson_read(text, n, 0);
    free(text);
    cr_assert(doc);
    return doc;
}

static void expect_ids(const struct ids *got, yyjson_val *want, const char *what) {
    cr_assert_eq(got->n, yyjson_arr_size(want), "%s: %zu ids, transformers has %zu", what, got->n,
                 yyjson_arr_size(want));
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach(want, i, n, v) {
        cr_expect_eq(got->p[i], yyjson_get_uint(v), "%s: id %zu", what, i);
    }
}

Test(tiny_text, prompts_and_continuations) {
    struct err e = {0};
    struct tokenizer *t;
    cr_assert_eq(tokenizer_open(&t, "test/models/tiny", &e), 0, "%s", e.msg);
    yyjson_doc *doc = read_known();
    yyjson_val *prompts = yyjson_obj_get(yyjson_doc_get_root(doc), "prompts"), *p, *v;
    size_t i, n, k, n_ids;
    yyjson_arr_foreach(prompts, i, n, p) {
        yyjson_val *text = yyjson_obj_get(p, "text");
        struct ids ids = {0};
        cr_assert_eq(tokenizer_encode(t, yyjson_get_str(text), yyjson_get_len(text), TOK_BOS, &ids, &e), 0, "%s",
                     e.msg);
        expect_ids(&ids, yyjson_obj_get(p, "ids"), yyjson_get_str(text));
        ids_clear(&ids);
        yyjson_arr_foreach(yyjson_obj_get(p, "greedy_ids"), k, n_ids, v) {
            ids_push(&ids, (uint32_t)yyjson_get_uint(v));
        }
        struct wbuf out = {0};
        cr_assert_eq(tokenizer_decode(t, ids.p, ids.n, false, &out, &e), 0, "%s", e.msg);
        cr_expect_str_eq(wbuf_cstr(&out), yyjson_get_str(yyjson_obj_get(p, "greedy_text")));
        wbuf_free(&out);
        ids_free(&ids);
    }
    yyjson_doc_free(doc);
    tokenizer_free(t);
}

Test(tiny_text, conversation) {
    struct err e = {0};
    struct tokenizer *t;
    struct chat_template *template;
    char *bos, *eos;
    cr_assert_eq(tokenizer_open(&t, "test/models/tiny", &e), 0, "%s", e.msg);
    cr_assert_eq(chat_template_open_dir(&template, &bos, &eos, "test/models/tiny", &e), 0, "%s", e.msg);
    cr_assert_not_null(template);
    yyjson_doc *doc = read_known();
    yyjson_val *chat = yyjson_obj_get(yyjson_doc_get_root(doc), "chat"), *v;
    struct chat_message messages[16];
    size_t i, n;
    yyjson_arr_foreach(yyjson_obj_get(chat, "messages"), i, n, v) {
        cr_assert_lt(i, 16);
        messages[i] = (struct chat_message){.role = yyjson_get_str(yyjson_obj_get(v, "role")),
                                            .content = yyjson_get_str(yyjson_obj_get(v, "content"))};
    }
    const struct chat_vars vars = {.bos_token = bos, .eos_token = eos, .add_generation_prompt = true};
    struct chat_prompt prompt = {0};
    cr_assert_eq(chat_template_render(template, messages, n, &vars, &prompt, &e), 0, "%s", e.msg);
    cr_expect_str_eq(wbuf_cstr(&prompt.text), yyjson_get_str(yyjson_obj_get(chat, "rendered")));
    struct ids ids = {0};
    cr_assert_eq(tokenizer_encode(t, (char *)prompt.text.p, prompt.text.n, TOK_SPECIAL, &ids, &e), 0, "%s", e.msg);
    expect_ids(&ids, yyjson_obj_get(chat, "ids"), "the conversation");
    cr_expect_eq(ids.p[0], (uint32_t)tokenizer_bos(t));
    ids_free(&ids);

    messages[0].role = "owner";
    cr_expect_eq(chat_template_render(template, messages, n, &vars, &prompt, &e), -1);
    cr_expect(strstr(e.msg, "the roles are system, user and assistant, not owner"), "%s", e.msg);
    chat_prompt_free(&prompt);
    yyjson_doc_free(doc);
    chat_template_free(template);
    free(bos);
    free(eos);
    tokenizer_free(t);
}
