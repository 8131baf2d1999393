/* cmd/learned: what of a turn is new. */
#include "cmd/engine/learned.h"

#include <criterion/criterion.h>

enum { MAX = 200 };

/* Tokens first, first + 1, ... */
static size_t put(uint32_t *to, size_t at, uint32_t first, size_t n) {
    for (size_t i = 0; i < n; i++)
        to[at + i] = first + (uint32_t)i;
    return at + n;
}

Test(learned, new_part_of_a_prompt) {
    uint32_t last[MAX], prompt[MAX];
    size_t n_last, n;
    /* system prompt 100.., message 200.., answer 300.. */
    n_last = put(last, put(last, put(last, 0, 100, 10), 200, 20), 300, 30);
    cr_assert_eq(learned_new_part(NULL, 0, last, n_last), 0, "the first turn is new");

    n = put(prompt, put(prompt, put(prompt, 0, 100, 10), 200, 20), 300, 30);
    n = put(prompt, n, 400, 15);
    cr_assert_eq(learned_new_part(last, n_last, prompt, n), 60, "the next message");
    cr_assert_eq(learned_new_part(last, n_last, prompt, 60), 60);

    cr_assert_eq(learned_new_part(last, n_last, last, 30), 30, "another answer to the same message");

    n = put(prompt, put(prompt, 0, 100, 10), 500, 15);
    cr_assert_eq(learned_new_part(last, n_last, prompt, n), 10, "a new conversation under the same system prompt");

    n = put(prompt, put(prompt, put(prompt, 0, 100, 10), 300, 30), 400, 15);
    cr_assert_eq(learned_new_part(last, n_last, prompt, n), 40, "an older message was dropped");

    n = put(prompt, put(prompt, 0, 900, 70), 318, 12);
    n = put(prompt, n, 400, 15);
    cr_assert_eq(learned_new_part(last, n_last, prompt, n), 82, "a template that rewrote everything before");

    n = put(prompt, put(prompt, 0, 900, 70), 319, 11);
    n = put(prompt, n, 400, 15);
    cr_assert_eq(learned_new_part(last, n_last, prompt, n), 0, "and one that left too little of it");
    cr_assert_eq(learned_new_part(last, n_last, prompt, 3), 0);
}
