/* Fuzzes tekken.json, and encoding and decoding with what comes out. */
#include "test/fuzz/tok_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct tokenizer *t;
    struct err e = {0};
    int rc = tokenizer_parse_tekken(&t, (const char *)data, size, "fuzz", &e);
    tok_fuzz_use(rc, t, &e);
    return 0;
}
