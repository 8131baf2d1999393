/* Keys and values of a share's layers, and what belongs to them: attention's scratch, and launches that name them. */
#include "gpu/share.h"

enum { ALIGN = 16 };

static size_t aligned(size_t n) {
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

uint32_t kv_key_bucket(uint32_t n_keys) {
    uint32_t bucket = GPU_KV_SPLIT;
    while (bucket < n_keys)
        bucket *= 2;
    return bucket;
}

uint32_t kv_max_keys(const struct model_config *c, uint32_t n_slots) {
    return kv_key_bucket(n_slots < (uint32_t)c->max_ctx ? n_slots : (uint32_t)c->max_ctx);
}

/* What attention needs for the largest piece and the longest context, and for each smaller one. */
static size_t attend_scratch(const struct share *s, uint32_t max_keys) {
    const struct model_config *c = s->config;
    size_t most = 0;
    for (int rows = 1; rows <= s->piece_rows; rows = share_bucket(rows + 1))
        for (uint32_t keys = GPU_KV_SPLIT; keys <= max_keys; keys *= 2) {
            size_t n = op_attend_scratch(s->card->gpu, rows, s->n_heads, s->n_kv_heads, c->head_dim, keys);
            most = n > most ? n : most;
        }
    return most * sizeof(float);
}

static int check_memory(const struct share_kv *kv, uint32_t n_slots, struct err *e) {
    struct gpu *g = kv->share->card->gpu;
    size_t left = gpu_memory_left(g), need = kv->bytes + kv->scratch_bytes;
    if (need <= left)
        return 0;
    size_t rest = left > kv->scratch_bytes ? left - kv->scratch_bytes : 0;
    char a[24], b[24];
    return err_set(
        e, ERR_MEMORY,
        "%u slots of KV cache for layers %d to %d need %s on GPU %d (%s), which has %s left: about %.0f slots "
        "would fit; a smaller --ctx (of a cloud: --kv-mem, --max-ctx) needs less",
        n_slots, kv->share->lo, kv->share->hi, memory_text((double)need, a), g->ordinal, g->name,
        memory_text((double)left, b), (double)rest / ((double)kv->bytes / n_slots));
}

int share_kv_create(struct share_kv *kv, struct share *s, uint32_t n_slots, enum dtype type, struct err *e) {
    const struct model_config *c = s->config;
    *kv = (struct share_kv){.share = s, .n_slots = n_slots, .type = type};
    if (s->lo == s->hi)
        return 0;
    if (card_enter(s->card, e) != 0)
        return -1;
    /* Of its own heads. */
    kv->layer = aligned(n_slots * config_kv_bytes(c, type) / (size_t)c->n_kv_heads * (size_t)s->n_kv_heads);
    kv->bytes = kv->layer * (size_t)(s->hi - s->lo);
    kv->scratch_bytes = attend_scratch(s, kv_max_keys(c, n_slots));
    if (check_memory(kv, n_slots, e) != 0)
        goto fail;
    if (recordings_create(&kv->recordings, s->card->gpu, e) != 0)
        goto fail;
    /* Slot tables as long as the cache, and branches beside them. */
    if (share_reserve_slots(s, (size_t)n_slots + (size_t)s->piece_rows * GPU_KV_BLOCK, e) != 0 ||
        (kv->bytes && gpu_alloc(s->card->gpu, &kv->data, kv->bytes, "the KV cache", e) != 0) ||
        (kv->scratch_bytes && gpu_alloc(s->card->gpu, &kv->scratch, kv->scratch_bytes, "attention", e) != 0))
        goto fail;
    return 0;
fail:
    share_kv_free(kv);
    return -1;
}

void share_kv_layer(const struct share_kv *kv, int layer, struct attention *a) {
    const struct share *s = kv->share;
    bool fp8 = kv->type == DT_E4M3;
    size_t row = fp8 ? op_kv_row(s->config->head_dim) : (size_t)s->config->head_dim * sizeof(uint16_t);
    size_t plane = (size_t)s->n_kv_heads * kv->n_slots * row;
    uint8_t *at = (uint8_t *)(uintptr_t)kv->data + kv->layer * (size_t)(layer - s->lo);
    a->k = at;
    a->v = at + plane;
    a->factors = fp8 ? (uint32_t *)(void *)(at + 2 * plane) : NULL;
    a->n_slots = kv->n_slots;
}

void share_kv_clear(struct share_kv *kv) {
    if (!kv->data)
        return;
    struct err ignored = {0}; /* kept by the card: the next pass tells */
    gpu_enter(kv->share->card->gpu);
    gpu_wipe(kv->share->card->gpu, kv->data, kv->bytes);
    card_wait(kv->share->card, &ignored);
}

void share_kv_free(struct share_kv *kv) {
    if (!kv->share)
        return;
    struct gpu *g = kv->share->card->gpu;
    gpu_enter(g);
    recordings_free(&kv->recordings);
    if (kv->data)
        gpu_wipe(g, kv->data, kv->bytes);
    gpu_free(g, kv->data);
    if (kv->scratch)
        gpu_wipe(g, kv->scratch, kv->scratch_bytes);
    gpu_free(g, kv->scratch);
    *kv = (struct share_kv){0};
}
