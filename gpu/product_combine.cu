/* Sums of segments, left by the split form, in order. Grid: blocks of results, rows of the pass. */
#include "gpu/product_put.cuh"

DEVICE float sum_of(const product_args &a, int m, int row) {
    float y = 0;
    for (int s = 0; s < a.n_segments; s++)
        y += *partial_at(a, s, m, row);
    return y;
}

KERNEL(PRODUCT_COMBINE_THREADS, product_combine, struct product_args a) {
    release_successor();
    await_predecessor();
    int i = block_x() * PRODUCT_COMBINE_THREADS + thread_x(), row = block_y();
    if (row >= a.pass->n_rows)
        return;
    if (a.use == USE_GATE) {
        int pair = i / GPU_TILE, m = i % GPU_TILE;
        if (pair < a.n_tiles / 2)
            put_gated(a, pair, m, row, sum_of(a, pair * 2 * GPU_TILE + m, row),
                      sum_of(a, (pair * 2 + 1) * GPU_TILE + m, row));
        if (block_x() == 0)
            put_padding(a, row, row + 1, thread_x(), PRODUCT_COMBINE_THREADS);
    } else if (i < a.n_tiles * GPU_TILE)
        put(a, i, row, sum_of(a, i, row));
}
