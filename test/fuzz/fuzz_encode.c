/* Fuzzes text, not files: the first byte picks one of the committed tokenizers and the flags, the rest is text. */
#include "test/fuzz/tok_fuzz.h"
#include "tok/utf8.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const paths[] = {"spm_identity.model", "spm_nmt.model", "llama3.json", "qwen2.json",
                                        "llama2_legacy.json", "odd.json",      "tekken.json", "spm_unused.model"};
    static struct tokenizer *tok[8];
    struct err e = {0};
    if (size == 0)
        return 0;
    struct tokenizer **t = &tok[data[0] & 7];
    if (!*t) {
        char path[200];
        snprintf(path, sizeof path, "test/golden/tok/%s", paths[data[0] & 7]);
        tok_fuzz_check(tokenizer_open(t, path, &e) == 0);
    }
    struct ids v = {0};
    struct wbuf w = {0};
    struct tok_plain plain = {.off = size > 2 ? data[1] : 0, .n = size > 2 ? data[2] : 0};
    bool mixed = data[0] >> 6 == 3;
    const char *text = (const char *)data + 1;
    int rc = mixed ? tokenizer_encode_mixed(*t, text, size - 1, &plain, 1, 0, &v, &e)
                   : tokenizer_encode(*t, text, size - 1, data[0] >> 3 & 7, &v, &e);
    tok_fuzz_check(rc == 0 && tokenizer_decode(*t, v.p, v.n, true, &w, &e) == 0);
    tok_fuzz_check(utf8_valid_prefix(w.p, w.n) == w.n);
    ids_free(&v);
    wbuf_free(&w);
    return 0;
}
