/* Trained models against transformers: the tiny model of test/models/tiny, and stories260K where it is at hand. */
#include "core/base/file.h"
#include "test/unit/model_rig.h"

#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Largest relative L2 distance of logits, as for the random models; f16 KV is what users get by default. */
static const double TOLERANCE_F32 = 1e-4, TOLERANCE_F16 = 1e-2;

/* A model against its golden.bin: logits of all positions, greedy tokens. */
static void agrees(const char *model, const char *golden, int split, enum dtype kv_type) {
    struct golden g;
    struct rig r;
    golden_open(&g, golden);
    rig_open(&r, model,
             &(struct rig_opts){.front = split,
                                .back = split,
                                .max_rows = (int)g.n_tokens,
                                .ctx = g.n_tokens + g.n_greedy,
                                .kv_type = kv_type});
    double tolerance = kv_type == DT_F32 ? TOLERANCE_F32 : TOLERANCE_F16;
    float *logits = rig_chain_logits(&r, g.tokens, (int)g.n_tokens);
    struct distance d = golden_compare(&g, logits, tolerance);
    free(logits);
    cr_log_info("%s, split %d, kv %s: relative L2 %.2e stored, %.2e estimated over all", model, split,
                dtype_info(kv_type)->name, d.full, d.estimate);
    cr_expect(d.full <= tolerance && d.estimate <= tolerance, "logits are %.2e (stored), %.2e (all) off", d.full,
              d.estimate);
    cr_expect_eq(d.argmax_wrong, 0);
    if (kv_type == DT_F32) {
        uint32_t *greedy = malloc(g.n_greedy * sizeof *greedy);
        cr_assert(greedy);
        rig_feed(&r, g.tokens, g.n_tokens);
        rig_greedy(&r, greedy, (int)g.n_greedy);
        for (uint32_t i = 0; i < g.n_greedy; i++)
            cr_expect_eq(greedy[i], g.greedy[i], "greedy token %u is %u, transformers has %u", i, greedy[i],
                         g.greedy[i]);
        free(greedy);
    }
    rig_close(&r);
    golden_close(&g);
}

static void stories(int split, enum dtype kv_type) {
    char model[512];
    shared_path_or_skip(model, sizeof model, "data/models/stories260K");
    agrees(model, "test/models/stories260K/golden.bin", split, kv_type);
}

Test(known, stories260K) {
    stories(0, DT_F32);
    stories(2, DT_F32);
    stories(1, DT_F16);
}
