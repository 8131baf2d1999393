#include "core/cpu/cpu.h"
#include "core/cpu/isa.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static size_t elem_bytes(enum dtype t) {
    return t == DT_F16 || t == DT_BF16 ? 2 : 4;
}

static bool is_float(enum dtype t) {
    return t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

size_t packed_size(enum dtype t, int rows, int cols, enum quant quant, enum dtype *type) {
    *type = t;
    if (cols % 32 == 0 && quant == QUANT_Q8 && is_float(t))
        *type = DT_Q8_0;
    if (cols % 32 == 0 && quant == QUANT_Q4 && (is_float(t) || t == DT_Q8_0 || t == DT_Q6_K))
        *type = DT_Q4_0;
    return (size_t)(rows + PANEL - 1) / PANEL * PANEL * (size_t)cols * elem_bytes(*type);
}

struct load {
    struct packed *p;
    const struct tensor *t;
    enum quant quant;
    size_t per_worker;
    uint8_t *scratch;
};

static void load_panel(void *ctx, int panel, int worker) {
    struct load *l = ctx;
    struct packed *p = l->p;
    uint8_t *buf = l->scratch + (size_t)worker * l->per_worker;
    float *row = (float *)(void *)buf;
    uint8_t *raw = buf + (size_t)p->cols * 4, *coded = raw + l->t->row_bytes;
    uint8_t *dst = p->data + (size_t)panel * p->panel_bytes;
    for (int i = 0; i < PANEL; i++) {
        int r = panel * PANEL + i;
        if (r >= p->rows)
            break;
        const void *src = tensor_row(l->t, (uint32_t)r, raw);
        dtype_decode(l->t->dtype, src, (size_t)p->cols, row);
        if (p->type != l->t->dtype) {
            dtype_encode(p->type, row, (size_t)p->cols, coded);
            dtype_decode(p->type, coded, (size_t)p->cols, row);
        }
        for (int k = 0; k < p->cols; k++) {
            size_t at = (size_t)k * PANEL + (size_t)i;
            if (p->type == DT_F16)
                ((uint16_t *)(void *)dst)[at] = f32_to_f16(row[k]);
            else if (p->type == DT_BF16)
                ((uint16_t *)(void *)dst)[at] = f32_to_bf16(row[k]);
            else
                ((float *)(void *)dst)[at] = row[k];
        }
    }
}

int packed_load(struct packed *p, struct cpu *c, const struct tensor *t, enum quant quant, struct err *e) {
    memset(p, 0, sizeof *p);
    enum dtype type;
    size_t bytes = packed_size(t->dtype, (int)t->rows, (int)t->cols, quant, &type);
    int n_panels = ((int)t->rows + PANEL - 1) / PANEL;
    size_t huge = (size_t)2 << 20, align = bytes >= huge ? huge : 64;
    struct load l = {.p = p, .t = t, .quant = quant};
    l.per_worker = ((size_t)t->cols * 8 + t->row_bytes + 127) / 64 * 64;
    l.scratch = aligned_alloc(64, l.per_worker * (size_t)pool_threads(c->pool));
    size_t rounded = (bytes + align - 1) / align * align;
    uint8_t *data = aligned_alloc(align, rounded);
    if (!data || !l.scratch) {
        free(data);
        free(l.scratch);
        return err_set(e, ERR_MEMORY, "out of memory for %s (%zu MB)", t->name, bytes >> 20);
    }
    madvise(data, rounded, MADV_HUGEPAGE);
    memset(data, 0, bytes);
    *p = (struct packed){.type = type,
                         .rows = (int)t->rows,
                         .cols = (int)t->cols,
                         .panel_bytes = bytes / (size_t)n_panels,
                         .data = data,
                         .bytes = bytes};
    pool_run(c->pool, load_panel, &l, n_panels);
    free(l.scratch);
    return 0;
}

void packed_free(struct packed *p) {
    free(p->data);
    memset(p, 0, sizeof *p);
}

void packed_row(const struct packed *p, int row, float *dst) {
    const uint8_t *panel = p->data + (size_t)(row / PANEL) * p->panel_bytes;
    enum dtype layout = is_float(p->type) ? p->type : DT_F32;
    size_t elem = elem_bytes(p->type);
    for (int k = 0; k < p->cols; k++)
        dtype_decode(layout, panel + ((size_t)k * PANEL + (size_t)(row % PANEL)) * elem, 1, dst + k);
}
