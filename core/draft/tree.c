#include "core/draft/drafter.h"

/* A small model's pass is spent on paths at least as likely as this; it looks at others beside them by itself. Less
 * will do when the time is free. */
static const float WORTH_PAYING = 0.15f, WORTH_FREE = 0.01f;

/* A heap with the largest path probability on top. Equal ones come in a fixed order: nodes to expand first (their
 * children may be as probable), then by node and token, so that the same knowledge always grows the same tree. */
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

/* bound[0..*n): the cap best path probabilities seen, the smallest on top. */
static void bound_push(float *bound, int *n, int cap, float path) {
    int i;
    if (*n < cap) {
        for (i = (*n)++; i > 0 && path < bound[(i - 1) / 2]; i = (i - 1) / 2)
            bound[i] = bound[(i - 1) / 2];
        bound[i] = path;
        return;
    }
    if (path <= bound[0])
        return;
    i = 0;
    for (int c; (c = 2 * i + 1) < *n; i = c) {
        if (c + 1 < *n && bound[c + 1] < bound[c])
            c++;
        if (path <= bound[c])
            break;
        bound[i] = bound[c];
    }
    bound[i] = path;
}

static int grow(struct drafter *d, const uint32_t *root, int n_root, struct draft_node *tree, int n, int cap,
                float least, enum draft_compute compute, float worth) {
    struct draft_candidate c[DRAFT_CHILDREN];
    uint32_t path[DRAFT_DEPTH];
    int n_frontier = 0, n_bound = 0, old = n;
    if (cap > DRAFT_TREE)
        cap = DRAFT_TREE;
    int room = cap - n;
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
        /* Nothing below this can come in: as many better candidates are known as there is room for. */
        float floor = n_bound == room && d->bound[0] > least ? d->bound[0] : least;
        if (x.path < floor)
            continue;
        int depth = path_to(root, n_root, tree, x.node, path);
        d->computing = x.path >= worth ? compute : DRAFT_KNOWN;
        int k = depth < 0 ? 0 : drafter_look(d, path, depth, c, DRAFT_CHILDREN, floor / x.path);
        for (int i = 0; i < k; i++) {
            float p = x.path * c[i].p;
            if (p < floor || !(p > 0) || (x.node < old && is_child(tree, old, x.node, c[i].token)))
                continue;
            push(d, &n_frontier, (struct frontier_item){p, c[i].p, c[i].token, x.node, c[i].source, 0});
            bound_push(d->bound, &n_bound, room, p);
        }
    }
    d->computing = DRAFT_KNOWN;
    return n;
}

int draft_tree_grow(struct drafter *d, const uint32_t *root, int n_root, struct draft_node *tree, int n, int cap,
                    float least) {
    return grow(d, root, n_root, tree, n, cap, least, DRAFT_PAID, WORTH_PAYING);
}

int draft_tree_ahead(struct drafter *d, struct draft_node *tree, int n, int cap, float least, int passes, int *made) {
    d->passes = passes;
    d->made = 0;
    n = grow(d, NULL, 0, tree, n, cap, least, DRAFT_FREE, WORTH_FREE);
    *made = d->made;
    return n;
}
