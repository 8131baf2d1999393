#include "core/draft/drafter.h"

/* A heap with the largest path probability on top. Equal ones come in a fixed order: nodes to expand first (their children
 * may be as probable), then by node and token, so that the same knowledge always grows the same tree. */
static bool before(const struct frontier_item *a, const struct frontier_item *b) {
    if (a->path != b->path)
        return a->path > b->path;
    if (a->expand != b->expand)
        return a->expand;
    if (a->node != b->node)
        return a->node < b->node;
    return a->token < b->token;
}

static void push(struct drafter *d, int *n, struct frontier_item x) {
    if (*n == DRAFT_FRONTIER)
        return;
    int i = (*n)++;
    for (int up; i > 0 && (up = (i - 1) / 2, before(&x, &d->frontier[up])); i = up)
        d->frontier[i] = d->frontier[up];
    d->frontier[i] = x;
}

static struct frontier_item pop(struct drafter *d, int *n) {
    struct frontier_item *f = d->frontier, top = f[0], x = f[--*n];
    int i = 0;
    for (int c; (c = 2 * i + 1) < *n; i = c) {
        if (c + 1 < *n && before(&f[c + 1], &f[c]))
            c++;
        if (!before(&f[c], &x))
            break;
        f[i] = f[c];
    }
    f[i] = x;
    return top;
}

static bool is_child(const struct draft_node *tree, int n, int parent, uint32_t token) {
    for (int i = parent + 1; i < n; i++)
        if (tree[i].parent == parent && tree[i].token == token)
            return true;
    return false;
}

/* The tokens from the committed context to node, node included, in path. Returns how many, or -1: too deep. */
static int path_to(const uint32_t *root, int n_root, const struct draft_node *tree, int node, uint32_t *path) {
    int depth = n_root;
    for (int i = node; i >= 0; i = tree[i].parent)
        depth++;
    if (depth > DRAFT_DEPTH)
        return -1;
    for (int i = 0; i < n_root; i++)
        path[i] = root[i];
    for (int i = node, at = depth; i >= 0; i = tree[i].parent)
        path[--at] = tree[i].token;
    return depth;
}

int draft_tree_grow(struct drafter *d, const uint32_t *root, int n_root, struct draft_node *tree, int n, int cap,
                    float least) {
    struct draft_candidate c[DRAFT_CHILDREN];
    uint32_t path[DRAFT_DEPTH];
    int n_frontier = 0, old = n;
    push(d, &n_frontier, (struct frontier_item){.path = 1, .node = -1, .expand = 1});
    for (int i = 0; i < old; i++)
        push(d, &n_frontier, (struct frontier_item){.path = tree[i].path, .node = i, .expand = 1});
    while (n < cap && n_frontier > 0) {
        struct frontier_item x = pop(d, &n_frontier);
        if (x.path < least)
            break;
        if (!x.expand) {
            tree[n] = (struct draft_node){x.token, x.node, x.p, x.path, x.source};
            push(d, &n_frontier, (struct frontier_item){.path = x.path, .node = n++, .expand = 1});
            continue;
        }
        int depth = path_to(root, n_root, tree, x.node, path);
        int k = depth < 0 ? 0 : drafter_next(d, path, depth, c, DRAFT_CHILDREN);
        for (int i = 0; i < k; i++) {
            float p = x.path * c[i].p;
            if (p >= least && p > 0 && !(x.node < old && is_child(tree, old, x.node, c[i].token)))
                push(d, &n_frontier, (struct frontier_item){p, c[i].p, c[i].token, x.node, c[i].source, 0});
        }
    }
    return n;
}
