/* Cards that compute the same layers together (--device 0+1): the bits of one card, whatever the model, the pass and
 * the team; and what happens when one of them fails or has no room. */
#include "core/model/kv.h"
#include "core/model/names.h"
#include "gpu/backend.h"
#include "gpu/stage.h"
#include "test/unit/layer_rig.h"
#include "test/unit/loading.h"
#include "test/unit/model_rig.h"
#include "test/unit/product_rig.h"
#include "test/unit/tree_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIASED "test/models/families/qwen2-swa"  /* 4 layers, biases, a window of 41 from layer 2 on, MLP of 5 tiles */
#define THIRDS "test/models/families/llama-bias" /* 3 KV heads, biases everywhere, MLP of 7 tiles */
#define TINY   "test/models/tiny"                /* a KV head a card, slices of several tiles */

static void prepare(void) {
    gpu_rig_prepare(4, 0);
}
TestSuite(gpu_joined, .init = prepare, .timeout = 120);
TestSuite(gpu_slices, .timeout = 20);

static void needs_cards(int n) {
    struct err e = {0};
    int there;
    cr_assert_eq(gpu_count(&there, &e), 0, "%s", e.msg);
    if (there < n)
        cr_skip_test("SKIP: this machine has %d card%s", there, there == 1 ? "" : "s");
}

static void no_leaks(void) {
    if (!gpu_rig_real())
        cr_assert_eq(gpu_rig_leaks(), 0);
}

/* ---- slices ---- */

Test(gpu_slices, cover_all_rows_in_whole_tiles) {
    for (int rows = 1; rows <= 300; rows++)
        for (int n = 1; n <= 9; n++) {
            int at = 0, tiles = (rows + 15) / 16, each = plan_slice(rows, (struct seat){0, n}).each;
            if (plan_slice(rows, (struct seat){n - 1, n}).n <= 0) { /* what no team may have */
                cr_assert_leq(tiles, (n - 1) * ((tiles + n - 1) / n), "%d rows, %d cards", rows, n);
                continue;
            }
            for (int r = 0; r < n; r++) {
                struct slice s = plan_slice(rows, (struct seat){r, n});
                cr_assert_eq(s.first, at, "%d rows, card %d of %d", rows, r, n);
                cr_assert(s.each == each && s.first == r * each && s.n > 0);
                cr_assert(r == n - 1 ? s.n <= each : s.n == each);
                cr_assert(n == 1 || each % GPU_TILE == 0);
                at += s.n;
            }
            cr_assert_eq(at, rows);
        }
}

/* Each row of each tensor belongs to one card; those of q, k and v to the card of its head. */
static void plan_covers(const char *model, int n) {
    struct weights *w = layer_open(model);
    const struct model_config *c = weights_config(w);
    const struct part all = {.hi = c->n_layers, .head = true};
    struct stage_plan whole, plans[4];
    struct err e = {0};
    uint64_t file = 0;
    cr_assert_eq(stage_plan_make(&whole, w, &all, (struct seat){0, 1}, QUANT_NONE, &e), 0, "%s", e.msg);
    for (int r = 0; r < n; r++) {
        cr_assert_eq(stage_plan_make(&plans[r], w, &all, (struct seat){r, n}, QUANT_NONE, &e), 0, "%s", e.msg);
        file += plans[r].file;
    }
    cr_expect_eq(file, whole.file, "bytes are read once");
    for (int i = 0; i <= c->n_layers * N_LAYER_TENSORS; i++) {
        bool head = i == c->n_layers * N_LAYER_TENSORS;
        int tensor = i % N_LAYER_TENSORS, layer = i / N_LAYER_TENSORS;
        uint32_t at = 0, rows = head ? whole.head_tensor.t.rows : whole.layers[layer].tensors[tensor].t.rows;
        for (int r = 0; r < n; r++) {
            const struct matrix_part *p = head ? &plans[r].head_tensor : &plans[r].layers[layer].tensors[tensor];
            cr_expect_eq(p->first, at);
            at += p->n;
            if (!head && tensor < 3) {
                uint32_t heads = (uint32_t)(tensor == 0 ? c->n_heads : c->n_kv_heads) / (uint32_t)n;
                cr_expect_eq(p->n, heads * (uint32_t)c->head_dim);
            }
        }
        cr_expect_eq(at, rows, "tensor %d of layer %d", tensor, layer);
    }
    for (int r = 0; r < n; r++)
        stage_plan_free(&plans[r]);
    stage_plan_free(&whole);
    weights_close(w);
}

/* A bias stands where its row does: element by element against the tensor. */
static void biases_follow(const char *model, int n) {
    struct weights *w = layer_open(model);
    const struct model_config *c = weights_config(w);
    const struct part all = {.hi = c->n_layers};
    struct err e = {0};
    for (int r = 0; r < n; r++) {
        struct stage_plan p;
        struct layer_vectors v;
        struct vectors count = {0};
        cr_assert_eq(stage_plan_make(&p, w, &all, (struct seat){r, n}, QUANT_NONE, &e), 0, "%s", e.msg);
        cr_assert_eq(plan_layer_vectors(&p, 1, &count, &v, &e), 0, "%s", e.msg);
        float *host = malloc(count.n * sizeof *host);
        struct vectors place = {.host = host, .card = host};
        cr_assert_eq(plan_layer_vectors(&p, 1, &place, &v, &e), 0, "%s", e.msg);
        static const char *const names[] = {"q", "k", "v", "o", "gate", "up", "down"};
        for (int m = 0; m < N_LAYER_MATRICES; m++)
            for (int t = 0; v.bias[m] && t < layer_matrices[m].n; t++) {
                const struct matrix_part *part = &p.layers[1].tensors[layer_matrices[m].first + t];
                int tensor = layer_matrices[m].first + t;
                struct tensor b;
                char name[NAMES_MAX];
                snprintf(name, sizeof name, "model.layers.1.%s.%s_proj.bias", tensor < 4 ? "self_attn" : "mlp",
                         names[tensor]);
                cr_assert_eq(weights_get(w, name, 1, part->t.rows, &b, &e), 0, "%s", e.msg);
                float *want = malloc(part->t.rows * sizeof *want);
                void *scratch = malloc(b.row_bytes);
                dtype_decode(b.dtype, tensor_row(&b, 0, scratch), part->t.rows, want);
                for (uint32_t i = 0; i < part->n; i++)
                    cr_assert_eq(v.bias[m][matrix_row(&p.layers[1].w[m], part, (int)i)], want[part->first + i],
                                 "%s, row %u of card %d", name, i, r);
                free(want);
                free(scratch);
            }
        free(host);
        stage_plan_free(&p);
    }
    weights_close(w);
}

Test(gpu_slices, belong_to_one_card_each) {
    plan_covers(TINY, 2);
    plan_covers(BIASED, 2);
    plan_covers(THIRDS, 3);
    biases_follow(BIASED, 2);
    biases_follow(THIRDS, 3);
}

static void refused(const char *model, int n, ...) {
    struct weights *w = layer_open(model);
    struct err e = {0};
    va_list ap;
    cr_expect_eq(plan_check_team(weights_config(w), n, model, &e), -1);
    cr_expect_eq(e.kind, ERR_USAGE);
    va_start(ap, n);
    for (const char *s; (s = va_arg(ap, const char *));)
        cr_expect(strstr(e.msg, s) != NULL, "no \"%s\" in: %s", s, e.msg);
    va_end(ap);
    weights_close(w);
}

Test(gpu_slices, of_models_that_cannot_be_cut) {
    refused(TINY, 3, "3 cards", "KV heads are 2", "Teams of 2 cards", "--device 0,1", NULL);
    refused("test/models/families/qwen3", 2, "KV heads are 1", "No team", "--device 0,1", NULL);
    refused("test/models/families/llama2", 3, "hidden size of 54", "16 rows", "No team", NULL);
}

/* ---- bits ---- */

/* A model with everything that families of test/models do not have together with several KV heads: q and k norms, K
 * types (and two of them in a gated pair), a tied head, sizes that are no multiples of a team's tiles. */
enum { HIDDEN = 256, HEADS = 8, KV_HEADS = 4, DIM = 32, FFN = 288, VOCAB = 203, LAYERS = 2 };

static void add_tensor(struct wbuf *names, struct wbuf *data, const char *name, enum dtype type, int rows, int cols) {
    static const uint32_t ggml[DT_COUNT] = {[DT_F32] = 0, [DT_Q8_0] = 8, [DT_Q4_K] = 12, [DT_Q6_K] = 14};
    struct tensor t = prod_tensor(type, rows, cols, data->n + 1);
    gg_tensor(names, name, rows == 1 ? 1 : 2, (const uint64_t[]){(uint64_t)cols, (uint64_t)rows}, ggml[type], data->n);
    wbuf_put(data, t.data, (size_t)rows * t.row_bytes);
    gg_pad(data, 32);
    prod_tensor_free(&t);
}

static void make_model(const char *dir) {
    static const struct {
        const char *name;
        enum dtype type;
        int rows, cols;
    } layer[] = {
        {"attn_norm", DT_F32, 1, HIDDEN},
        {"attn_q", DT_Q4_K, HEADS * DIM, HIDDEN},
        {"attn_k", DT_Q4_K, KV_HEADS * DIM, HIDDEN},
        {"attn_v", DT_Q6_K, KV_HEADS * DIM, HIDDEN},
        {"attn_output", DT_Q4_K, HIDDEN, HEADS * DIM},
        {"attn_q_norm", DT_F32, 1, DIM},
        {"attn_k_norm", DT_F32, 1, DIM},
        {"ffn_norm", DT_F32, 1, HIDDEN},
        {"ffn_gate", DT_Q4_K, FFN, HIDDEN},
        {"ffn_up", DT_Q6_K, FFN, HIDDEN},
        {"ffn_down", DT_Q8_0, HIDDEN, FFN},
    };
    enum { N_LAYER = sizeof layer / sizeof layer[0] };
    struct wbuf file = {0}, data = {0};
    char name[64];
    gg_start(&file, 3, LAYERS * N_LAYER + 2, 9);
    gg_key_str(&file, "general.architecture", "qwen3");
    gg_key_u32(&file, "qwen3.embedding_length", HIDDEN);
    gg_key_u32(&file, "qwen3.block_count", LAYERS);
    gg_key_u32(&file, "qwen3.feed_forward_length", FFN);
    gg_key_u32(&file, "qwen3.context_length", 512);
    gg_key_u32(&file, "qwen3.attention.head_count", HEADS);
    gg_key_u32(&file, "qwen3.attention.head_count_kv", KV_HEADS);
    gg_key_u32(&file, "qwen3.attention.key_length", DIM);
    gg_key_f32(&file, "qwen3.attention.layer_norm_rms_epsilon", 1e-5f);
    add_tensor(&file, &data, "token_embd.weight", DT_Q6_K, VOCAB, HIDDEN);
    add_tensor(&file, &data, "output_norm.weight", DT_F32, 1, HIDDEN);
    for (int i = 0; i < LAYERS; i++)
        for (int j = 0; j < N_LAYER; j++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", i, layer[j].name);
            add_tensor(&file, &data, name, layer[j].type, layer[j].rows, layer[j].cols);
        }
    gg_pad(&file, 32);
    wbuf_put(&file, data.p, data.n);
    store_file(dir, "model.gguf", file.p, file.n);
    wbuf_free(&file);
    wbuf_free(&data);
}

/* Decoding, trees, a prompt of more rows than are recorded, and its continuation. */
static void joined_gives_the_bits_of_one(const char *model, const char *cards, enum quant quant, int trees) {
    enum { PROMPT = 90, CTX = 112, MORE = 5 };
    struct rig one, joined;
    struct tree t;
    uint32_t tokens[PROMPT], a[MORE], b[MORE], seed = 11;
    struct rig_opts o = {.cards = "0", .max_rows = PROMPT, .ctx = CTX, .kv_type = DT_F16, .quant = quant};
    rig_open(&one, model, &o);
    o.cards = cards;
    rig_open(&joined, model, &o);
    size_t vocab = (size_t)one.config->vocab;
    tree_open(&t, vocab);
    for (int i = 0; i < trees; i++) {
        tree_grow(&t, (uint32_t)vocab, &seed);
        tree_compare(&t, joined.session, one.session, vocab, model);
    }
    tree_close(&t);
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = (uint32_t)(i * i * 7 + 3) % (uint32_t)vocab;
    cr_expect_arr_eq(rig_feed(&joined, tokens, PROMPT), rig_feed(&one, tokens, PROMPT), vocab * sizeof(float),
                     "%s on %s: a prompt", model, cards);
    rig_greedy(&one, a, MORE);
    rig_greedy(&joined, b, MORE);
    cr_expect_arr_eq(a, b, sizeof a);
    cr_expect_arr_eq(session_logits(joined.session), session_logits(one.session), vocab * sizeof(float),
                     "%s on %s: behind it", model, cards);
    rig_close(&joined);
    rig_close(&one);
    no_leaks();
}

Test(gpu_joined, tiny_on_two) {
    needs_cards(2);
    joined_gives_the_bits_of_one(TINY, "0+1", QUANT_NONE, 1);
}
Test(gpu_joined, biases_and_a_window_on_two) {
    needs_cards(2);
    joined_gives_the_bits_of_one(BIASED, "1+0", QUANT_NONE, 2);
}
Test(gpu_joined, quantised_on_the_way) {
    needs_cards(2);
    joined_gives_the_bits_of_one(BIASED, "0+1", QUANT_Q4, 1);
}
Test(gpu_joined, biases_everywhere_on_three) {
    needs_cards(3);
    joined_gives_the_bits_of_one(THIRDS, "0+2+1", QUANT_NONE, 2);
}
Test(gpu_joined, two_teams) {
    needs_cards(4);
    joined_gives_the_bits_of_one(BIASED, "0+1,3+2", QUANT_NONE, 1);
}
Test(gpu_joined, a_team_and_a_card) {
    needs_cards(3);
    joined_gives_the_bits_of_one(BIASED, "2,0+1", QUANT_NONE, 1);
}

static void with_own_model(const char *cards, int trees) {
    char dir[64], path[80];
    scratch_make(dir);
    make_model(dir);
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    joined_gives_the_bits_of_one(path, cards, QUANT_NONE, trees);
    scratch_remove(dir);
}
Test(gpu_joined, norms_of_heads_and_k_types_on_two) {
    needs_cards(2);
    with_own_model("0+1", 1);
}
Test(gpu_joined, norms_of_heads_and_k_types_on_four) {
    needs_cards(4);
    with_own_model("0+1+2+3", 1);
}
