/* Fuzzes the tokenizers inside GGUF files, and encoding and decoding with what comes out. */
#include "core/model/gguf.h"
#include "test/fuzz/tok_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct tokenizer *t;
    struct gguf *g;
    struct err e = {0};
    if (gguf_parse(&g, data, size, "fuzz", &e) != 0)
        return 0;
    int rc = tokenizer_from_gguf(&t, g, &e);
    tok_fuzz_use(rc, t, &e);
    gguf_free(g);
    return 0;
}
