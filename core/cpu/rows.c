#include "core/cpu/cpu.h"
#include "core/cpu/isa.h"
#include "core/model/e4m3.h"

#include <math.h>
#include <string.h>

struct norm_run {
    struct cpu *c;
    float *y;
    int ldy;
    const float *x;
    int ldx;
    const float *w;
    int cols;
    float eps;
};

static void norm_row(void *ctx, int i, int worker) {
    const struct norm_run *r = ctx;
    (void)worker;
    r->c->isa->rmsnorm(r->y + (size_t)i * (size_t)r->ldy, r->x + (size_t)i * (size_t)r->ldx, r->w, r->cols, r->eps);
}

void cpu_rmsnorm(struct cpu *c, float *y, int ldy, const float *x, int ldx, const float *w, int n, int cols,
                 float eps) {
    struct norm_run r = {c, y, ldy, x, ldx, w, cols, eps};
    pool_run(c->pool, norm_row, &r, n);
}

struct silu_run {
    struct cpu *c;
    float *gate;
    const float *up;
    size_t cols;
};

static void silu_row(void *ctx, int i, int worker) {
    const struct silu_run *r = ctx;
    (void)worker;
    r->c->isa->silu_mul(r->gate + (size_t)i * r->cols, r->up + (size_t)i * r->cols, r->cols);
}

void cpu_silu_mul(struct cpu *c, float *gate, const float *up, int n, int cols) {
    struct silu_run r = {c, gate, up, (size_t)cols};
    pool_run(c->pool, silu_row, &r, n);
}

struct rope_run {
    struct cpu *c;
    float *x;
    int ldx;
    const float *cs;
    int n_heads, head_dim;
};

static void rope_row(void *ctx, int i, int worker) {
    const struct rope_run *r = ctx;
    (void)worker;
    r->c->isa->rope(r->x + (size_t)i * (size_t)r->ldx, r->cs + (size_t)i * (size_t)r->head_dim, r->n_heads,
                    r->head_dim);
}

void cpu_rope(struct cpu *c, float *x, int ldx, const float *cs, int n, int n_heads, int head_dim) {
    struct rope_run r = {c, x, ldx, cs, n_heads, head_dim};
    pool_run(c->pool, rope_row, &r, n);
}

/* sin and cos of an angle up to 2^22 or so: Cody and Waite's reduction by pi/2 in doubles (the first part has zeros at
 * its end, so that n times it is exact), then minimax polynomials on [-pi/4, pi/4]. Far below half an ulp of f32 off.
 */
static void sin_cos(double x, float *s, float *c) {
    double n = floor(x * 0x1.45f306dc9c883p-1 + 0.5);
    double r = x - n * 0x1.921fb54400000p0;
    r -= n * 0x1.0b4611a626331p-34;
    double z = r * r;
    double sp =
        r + r * z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800)))));
    double cp =
        1 + z * (-0.5 +
                 z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z * (1.0 / 479001600))))));
    switch ((uint64_t)n & 3) {
    case 0:
        *s = (float)sp, *c = (float)cp;
        break;
    case 1:
        *s = (float)cp, *c = (float)-sp;
        break;
    case 2:
        *s = (float)-sp, *c = (float)-cp;
        break;
    default:
        *s = (float)-cp, *c = (float)sp;
    }
}

void cpu_rope_table(float *cs, const uint32_t *pos, int n, const float *inv_freq, int head_dim) {
    int half = head_dim / 2;
    for (int i = 0; i < n; i++, cs += head_dim)
        for (int j = 0; j < half; j++) {
            float angle = (float)pos[i] * inv_freq[j];
            sin_cos((double)angle, &cs[half + j], &cs[j]);
        }
}

void cpu_kv_write(struct cpu *c, void *dst, enum dtype kv_type, size_t head_stride, const float *x, int ldx,
                  const struct batch *b, int n_kv_heads, int head_dim) {
    for (int i = 0; i < b->n; i++)
        for (int h = 0; h < n_kv_heads; h++) {
            const float *src = x + (size_t)i * (size_t)ldx + (size_t)h * (size_t)head_dim;
            size_t at = (size_t)h * head_stride + (size_t)b->rows[i].slot * (size_t)head_dim;
            if (kv_type == DT_F32)
                memcpy((float *)dst + at, src, (size_t)head_dim * sizeof *src);
            else if (kv_type == DT_E4M3)
                e4m3_round(src, (size_t)head_dim, (uint16_t *)dst + at);
            else
                c->isa->f32_to_f16((uint16_t *)dst + at, src, (size_t)head_dim);
        }
}
