#include "core/cpu/cpu.h"
#include "core/cpu/isa.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

static size_t panel_size(enum dtype t, int cols) {
    size_t n = (size_t)cols, bytes = 0;
    switch (t) {
    case DT_F32:
        bytes = n * 64;
        break;
    case DT_F16:
        bytes = n * 32;
        break;
    case DT_BF16:
        bytes = (n + 1) / 2 * 64;
        break;
    case DT_Q8_0:
        bytes = n / QBLOCK * (512 + 32);
        break;
    case DT_Q4_0:
        bytes = n / QBLOCK * (256 + 32);
        break;
    case DT_Q4_K:
        bytes = n / SUPER * (2048 + 320);
        break;
    default: /* DT_Q6_K */
        bytes = n / SUPER * (3072 + 288);
        break;
    }
    return (bytes + 63) / 64 * 64;
}

/* Re-encoding is for what it makes smaller. */
static enum dtype packed_type(enum dtype t, int cols, enum quant quant) {
    bool wide = dtype_is_float(t);
    if (cols % QBLOCK == 0 && quant == QUANT_Q8 && wide)
        return DT_Q8_0;
    if (cols % QBLOCK == 0 && quant == QUANT_Q4 && (wide || t == DT_Q8_0 || t == DT_Q6_K))
        return DT_Q4_0;
    return t;
}

size_t packed_size(enum dtype t, int rows, int cols, enum quant quant, enum dtype *type) {
    *type = packed_type(t, cols, quant);
    return ((size_t)rows + PANEL - 1) / PANEL * panel_size(*type, cols);
}

static void pack_floats(uint8_t *dst, const struct cpu_isa *isa, enum dtype type, size_t cols,
                        const uint8_t *const rows[PANEL]) {
    if (type == DT_F32)
        isa->transpose(dst, rows, 0, cols);
    else if (type == DT_F16)
        isa->transpose_half(dst, rows, 0, cols);
    else {
        isa->transpose(dst, rows, 0, cols / 2);
        for (size_t r = 0; cols % 2 && r < PANEL; r++) {
            uint8_t last[4] = {rows[r][cols * 2 - 2], rows[r][cols * 2 - 1], 0, 0};
            memcpy(dst + cols / 2 * 64 + r * 4, last, 4);
        }
    }
}

/* Q8_0 and Q4_0: blocks of {d f16, quants}. */
static void pack_blocks(uint8_t *dst, const struct cpu_isa *isa, enum dtype type, size_t cols,
                        const uint8_t *const rows[PANEL]) {
    size_t n = cols / QBLOCK, dwords = type == DT_Q8_0 ? 8 : 4;
    uint8_t *scales = dst + n * dwords * 64;
    for (size_t b = 0; b < n; b++) {
        size_t off = b * (2 + dwords * 4);
        isa->transpose(dst + b * dwords * 64, rows, off + 2, dwords);
        for (size_t r = 0; r < PANEL; r++)
            memcpy(scales + b * 32 + r * 2, rows[r] + off, 2);
    }
}

/* Blocks of {d f16, dmin f16, 12 bytes of six-bit scales and minima, 128 bytes of quants}. */
static void pack_q4_k(uint8_t *dst, const struct cpu_isa *isa, size_t cols, const uint8_t *const rows[PANEL]) {
    size_t n = cols / SUPER;
    for (size_t s = 0; s < n; s++) {
        isa->transpose(dst + s * 2048, rows, s * 144 + 16, 32);
        uint8_t *to = dst + n * 2048 + s * 320;
        for (size_t r = 0; r < PANEL; r++) {
            const uint8_t *b = rows[r] + s * 144, *q = b + 4;
            memcpy(to + r * 2, b, 2);
            memcpy(to + 32 + r * 2, b + 2, 2);
            for (size_t i = 0; i < 8; i++) {
                to[64 + i * 32 + r] = (uint8_t)(i < 4 ? q[i] & 63 : (q[i + 4] & 15) | q[i - 4] >> 6 << 4);
                to[80 + i * 32 + r] = (uint8_t)(i < 4 ? q[i + 4] & 63 : q[i + 4] >> 4 | q[i] >> 6 << 4);
            }
        }
    }
}

/* Blocks of {ql 128 bytes, qh 64, sc 16, d f16}. */
static void pack_q6_k(uint8_t *dst, const struct cpu_isa *isa, size_t cols, const uint8_t *const rows[PANEL]) {
    size_t n = cols / SUPER;
    for (size_t s = 0; s < n; s++) {
        isa->transpose(dst + s * 3072, rows, s * 210, 48);
        uint8_t *to = dst + n * 3072 + s * 288;
        for (size_t r = 0; r < PANEL; r++) {
            const uint8_t *b = rows[r] + s * 210;
            memcpy(to + r * 2, b + 208, 2);
            for (size_t i = 0; i < 16; i++)
                to[32 + i * 16 + r] = b[192 + i];
        }
    }
}

static size_t coded_row_bytes(const struct tensor *t, enum dtype type) {
    return type == t->dtype ? 0 : dtype_row_bytes(type, t->cols);
}

size_t panel_scratch(const struct tensor *t, enum dtype type) {
    size_t coded = coded_row_bytes(t, type), f32 = coded ? t->cols * sizeof(float) : 0;
    return (PANEL * (t->row_bytes + coded) + f32 + 63) / 64 * 64;
}

void panel_make(uint8_t *dst, const struct cpu_isa *isa, const struct tensor *t, enum dtype type, int panel,
                uint8_t *scratch) {
    uint8_t *coded = scratch + PANEL * t->row_bytes;
    size_t coded_bytes = coded_row_bytes(t, type), cols = t->cols;
    float *f = (float *)(void *)(scratch + panel_scratch(t, type) - cols * sizeof(float));
    const uint8_t *rows[PANEL];
    for (uint32_t i = 0; i < PANEL; i++) {
        uint32_t r = (uint32_t)panel * PANEL + i, last = t->rows - 1;
        rows[i] = tensor_row(t, r < last ? r : last, scratch + i * t->row_bytes);
        if (coded_bytes) {
            dtype_decode(t->dtype, rows[i], cols, f);
            dtype_encode(type, f, cols, coded + i * coded_bytes);
            rows[i] = coded + i * coded_bytes;
        }
    }
    if (dtype_is_float(type))
        pack_floats(dst, isa, type, cols, rows);
    else if (type == DT_Q4_K)
        pack_q4_k(dst, isa, cols, rows);
    else if (type == DT_Q6_K)
        pack_q6_k(dst, isa, cols, rows);
    else
        pack_blocks(dst, isa, type, cols, rows);
}

/* The place for a matrix. Nothing of it is touched: fresh memory costs when it is written for the first time. */
static int reserve(struct packed *p, const struct tensor *t, enum quant quant, struct err *e) {
    enum dtype type;
    int rows = (int)t->rows, cols = (int)t->cols;
    size_t bytes = packed_size(t->dtype, rows, cols, quant, &type);
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : 64, rounded = (bytes + align - 1) / align * align;
    memset(p, 0, sizeof *p);
    uint8_t *data = aligned_alloc(align, rounded);
    if (!data)
        return err_set(e, ERR_MEMORY, "out of memory for tensor %s (%zu MB); a smaller --quant needs less", t->name,
                       bytes >> 20);
    if (align == HUGE_PAGE)
        madvise(data, rounded, MADV_HUGEPAGE);
    p->type = type;
    p->rows = rows;
    p->cols = cols;
    p->panel_bytes = panel_size(type, cols);
    p->data = data;
    p->bytes = bytes;
    return 0;
}

struct load {
    const struct cpu_isa *isa;
    struct packed *p;
    const struct tensor *t;
    uint8_t *scratch; /* per worker */
    size_t per_worker;
};

static void load_panel(void *ctx, int panel, int worker) {
    const struct load *l = ctx;
    panel_make(l->p->data + (size_t)panel * l->p->panel_bytes, l->isa, l->t, l->p->type, panel,
               l->scratch + (size_t)worker * l->per_worker);
}

int packed_n_panels(const struct packed *p) {
    return (p->rows + PANEL - 1) / PANEL;
}

int packed_load(struct packed *p, struct cpu *c, const struct tensor *t, enum quant quant, struct err *e) {
    if (reserve(p, t, quant, e) != 0)
        return -1;
    struct load l = {.isa = c->isa, .p = p, .t = t, .per_worker = panel_scratch(t, p->type)};
    l.scratch = aligned_alloc(64, l.per_worker * (size_t)pool_threads(c->pool));
    if (!l.scratch) {
        packed_free(p);
        return err_set(e, ERR_MEMORY, "out of memory loading tensor %s", t->name);
    }
    pool_run(c->pool, load_panel, &l, packed_n_panels(p));
    free(l.scratch);
    return 0;
}

bool packed_may_be_raw(const struct tensor *t, enum quant quant) {
    return t->data && packed_type(t->dtype, (int)t->cols, quant) == t->dtype;
}

int packed_raw(struct packed *p, struct cpu *c, const struct tensor *t, struct err *e) {
    if (reserve(p, t, QUANT_NONE, e) != 0)
        return -1;
    size_t need = (size_t)raw_panels(p->panel_bytes) * p->panel_bytes + panel_scratch(t, p->type);
    if (need > c->panel_bytes) {
        uint8_t *panels = aligned_alloc(64, need * (size_t)pool_threads(c->pool));
        if (!panels) {
            packed_free(p);
            return err_set(e, ERR_MEMORY, "out of memory for panels of tensor %s", t->name);
        }
        free(c->panels);
        c->panels = panels;
        c->panel_bytes = need;
    }
    p->source = *t;
    atomic_init(&p->raw, true);
    return 0;
}

bool packed_is_raw(const struct packed *p) {
    return atomic_load_explicit(&p->raw, memory_order_acquire);
}

size_t packed_fill_scratch(const struct packed *p) {
    return panel_scratch(&p->source, p->type);
}

void packed_fill(struct packed *p, const struct cpu_isa *isa, void *scratch, int from, int to) {
    for (int i = from; i < to; i++)
        panel_make(p->data + (size_t)i * p->panel_bytes, isa, &p->source, p->type, i, scratch);
}

void packed_settled(struct packed *p) {
    atomic_store_explicit(&p->raw, false, memory_order_release);
}

void packed_free(struct packed *p) {
    free(p->data);
    memset(p, 0, sizeof *p);
}

/* The file's block of a row, put together again from its panel. */
static void file_block(const struct packed *p, const uint8_t *panel, size_t lane, size_t i, uint8_t *b) {
    size_t quants, at, scales, n = (size_t)p->cols / (size_t)dtype_info(p->type)->block;
    if (p->type == DT_Q8_0 || p->type == DT_Q4_0) {
        quants = p->type == DT_Q8_0 ? 8 : 4, at = 2, scales = n * quants * 64 + i * 32;
        memcpy(b, panel + scales + lane * 2, 2);
    } else if (p->type == DT_Q4_K) {
        quants = 32, at = 16, scales = n * 2048 + i * 320;
        memcpy(b, panel + scales + lane * 2, 2);
        memcpy(b + 2, panel + scales + 32 + lane * 2, 2);
        memset(b + 4, 0, 12);
        for (size_t j = 0; j < 8; j++) {
            uint8_t sc = panel[scales + 64 + j * 32 + lane], m = panel[scales + 80 + j * 32 + lane], *q = b + 4;
            if (j < 4) {
                q[j] |= sc;
                q[j + 4] |= m;
            } else {
                q[j + 4] = (uint8_t)((sc & 15) | m << 4);
                q[j - 4] |= (uint8_t)(sc >> 4 << 6);
                q[j] |= (uint8_t)(m >> 4 << 6);
            }
        }
    } else {
        quants = 48, at = 0, scales = n * 3072 + i * 288;
        memcpy(b + 208, panel + scales + lane * 2, 2);
        for (size_t j = 0; j < 16; j++)
            b[192 + j] = panel[scales + 32 + j * 16 + lane];
    }
    for (size_t d = 0; d < quants; d++)
        memcpy(b + at + d * 4, panel + (i * quants + d) * 64 + lane * 4, 4);
}

void packed_row(const struct packed *p, int row, float *dst) {
    const uint8_t *panel = p->data + (size_t)(row / PANEL) * p->panel_bytes;
    size_t lane = (size_t)row % PANEL, block = (size_t)dtype_info(p->type)->block;
    for (size_t i = 0; i < (size_t)p->cols / block; i++) {
        uint8_t b[256];
        if (p->type == DT_F32)
            memcpy(b, panel + i * 64 + lane * 4, 4);
        else if (p->type == DT_F16)
            memcpy(b, panel + i * 32 + lane * 2, 2);
        else if (p->type == DT_BF16)
            memcpy(b, panel + i / 2 * 64 + lane * 4 + i % 2 * 2, 2);
        else
            file_block(p, panel, lane, i, b);
        dtype_decode(p->type, b, block, dst + i * block);
    }
}
