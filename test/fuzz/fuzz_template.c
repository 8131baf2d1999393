/* Any bytes as a chat template, rendered over a fixed conversation. Corpus: test/fuzz/corpus/template and, read-only,
 * test/golden/templates; dictionary: test/fuzz/template.dict. */
#include "tok/template.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const struct chat_prompt *p) {
    size_t at = 0;
    for (size_t i = 0; i < p->n_spans; i++) {
        if (p->spans[i].off != at || p->spans[i].n == 0)
            abort();
        at += p->spans[i].n;
    }
    if (at != p->text.n)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const struct chat_message messages[] = {
        {"system", "Be \xc3\xa4hnlich."},
        {"user", "Hi </s> <|im_end|> {{ x }} \xff 'q' \"d\"\n two"},
        {"assistant", "<think>\nwell\n</think>\n\nNo."},
        {"user", ""},
    };
    static const struct chat_vars vars = {
        .bos_token = "<s>",
        .eos_token = "</s>",
        .add_generation_prompt = true,
        .date = "26 Jul 2024",
        .extra_json =
            "{\"s\":\"Hello, \xc3\x9f World\",\"n\":3,\"f\":-2.5,\"b\":false,\"z\":null,\"l\":[3,\"a\",[1,2],{}],"
            "\"d\":{\"a\":1,\"k\":[\"x\",\"Y\"],\"items\":2},\"tools\":[{\"type\":\"function\",\"function\":"
            "{\"name\":\"f\",\"parameters\":{\"properties\":{\"p\":{\"type\":\"string\"}}}}}]}",
    };
    struct err e = {0};
    struct chat_template *t;
    struct chat_prompt p = {0};
    int rc = chat_template_parse(&t, (const char *)data, n, "fuzz", &e);
    if (rc == 0) {
        rc = chat_template_render(t, messages, 4, &vars, &p, &e);
        check(&p);
    }
    if ((rc == 0) != (e.kind == ERR_NONE))
        abort();
    chat_prompt_free(&p);
    chat_template_free(t);
    return 0;
}
