/* The drafter of core/draft/draft.h as a session takes it. */
#include "core/decode/session.h"

static void on_sync(void *ctx, const uint32_t *tokens, uint32_t n) {
    drafter_sync(ctx, tokens, n);
}

static void on_logits(void *ctx, uint32_t token, const float *logits) {
    drafter_logits(ctx, token, logits);
}

static int on_next(void *ctx, const uint32_t *path, int n_path, struct draft_candidate *c, int cap) {
    return drafter_next(ctx, path, n_path, c, cap);
}

static void on_outcome(void *ctx, const struct draft_candidate *offered, int n, uint32_t truth) {
    drafter_outcome(ctx, offered, n, truth);
}

static int on_grow(void *ctx, const uint32_t *root, int n_root, struct draft_node *tree, int n, int cap, float least) {
    return draft_tree_grow(ctx, root, n_root, tree, n, cap, least);
}

static int on_ahead(void *ctx, struct draft_node *tree, int n, int cap, float least, int passes, int *made) {
    return draft_tree_ahead(ctx, tree, n, cap, least, passes, made);
}

struct session_drafter session_drafter_of(struct drafter *d) {
    return (struct session_drafter){.ctx = d,
                                    .sync = on_sync,
                                    .logits = on_logits,
                                    .next = on_next,
                                    .outcome = on_outcome,
                                    .grow = on_grow,
                                    .ahead = on_ahead};
}
