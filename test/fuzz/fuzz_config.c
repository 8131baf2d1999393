/* Fuzzes config.json and generation_config.json: the input is the one, or both with a NUL between them. */
#include "core/model/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void check(int holds) {
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *json = (const char *)data, *nul = size ? memchr(json, 0, size) : NULL;
    size_t n = nul ? (size_t)(nul - json) : size;
    struct model_config c;
    struct err e = {0};
    if (config_from_json(&c, json, n, nul ? nul + 1 : NULL, nul ? size - n - 1 : 0, "fuzz", &e) != 0) {
        check(e.kind != ERR_NONE && strlen(e.msg) < sizeof e.msg);
        return 0;
    }
    float inv[CONFIG_MAX_HEAD_DIM / 2];
    config_rope_freqs(&c, inv);
    for (int i = 0; i < c.head_dim / 2; i++)
        check(isfinite(inv[i]) && inv[i] > 0);
    check(c.n_heads % c.n_kv_heads == 0 && c.head_dim % 2 == 0 && c.head_dim <= CONFIG_MAX_HEAD_DIM);
    check(c.sliding_window >= 0 && c.sliding_from >= 0 && c.sliding_from <= c.n_layers);
    check(c.n_eos <= CONFIG_MAX_EOS && c.bos >= -1 && c.bos < c.vocab);
    for (int i = 0; i < c.n_eos; i++)
        check(c.eos[i] >= 0 && c.eos[i] < c.vocab);
    config_free(&c);
    return 0;
}
