/* core/cpu/cpu.h - the CPU's kernels behind one interface: packed matrices, products, attention, element-wise steps.
 *
 * Identity. Every kernel is written over 16 lanes with one order of operations per output element: an output of a
 * matrix product accumulates k = 0, 1, 2 ... with fused multiply-adds in its own lane, however many rows share the
 * call; a reduction over a row sums element i into lane i % 16 and then folds the lanes 8, 4, 2, 1. All instruction
 * sets follow the same order and use fused multiply-add, so portable, AVX2, AVX-512 and NEON give the same bits. */
#ifndef CORE_CPU_CPU_H
#define CORE_CPU_CPU_H

#include "core/base/err.h"
#include "core/base/pool.h"
#include "core/model/backend.h"
#include "core/model/dtype.h"
#include "core/model/weights.h"
#include "core/model/window.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The kernels of one instruction set (isa.h), and the threads that run them. */
struct cpu_isa;
struct cpu {
    struct pool *pool;
    const struct cpu_isa *isa;
    void *scratch; /* grown by cpu_reserve, used inside the calls below */
    size_t scratch_bytes;
    uint8_t *panels; /* [threads][panel_bytes], grown by packed_raw: panels of raw matrices, made for one product */
    size_t panel_bytes;
};

/* isa as in backend_cpu_create. */
int cpu_init(struct cpu *c, int n_threads, const char *isa, struct err *e);
void cpu_free(struct cpu *c);
const char *cpu_isa_name(const struct cpu *c);
/* Names of the instruction sets that this machine can run, best first, NULL-terminated. */
const char *const *cpu_isa_list(void);

/* A matrix [rows][cols] in panels of 16 rows: for each k the 16 weights stand together. Owned.
 *
 * A raw matrix has its place reserved, but its weights are still in the tensor. A product makes the panels that it
 * needs on the way and multiplies them with the same kernels: the same bits, only slower. packed_settled ends
 * that state, and may do so while products of other threads use the matrix. */
struct packed {
    enum dtype type; /* F32 F16 BF16 Q8_0 Q4_0 Q4_K Q6_K: the precision; the layout is the panel's own (pack.c) */
    int rows, cols;
    size_t panel_bytes;
    uint8_t *data; /* 64-byte aligned; NULL for an empty struct; not to be read while raw */
    size_t bytes;
    atomic_bool raw;      /* goes from true to false once, with release order, when data is whole */
    struct tensor source; /* of a matrix that is or was raw */
};

/* Bytes that packing a rows x cols matrix of t with quant takes, and the type it will have. */
size_t packed_size(enum dtype t, int rows, int cols, enum quant quant, enum dtype *type);
/* Packs t with all threads of c, reading each row once. quant re-encodes matrices whose cols are a multiple of 32;
 * others keep their type. On error p is empty. */
int packed_load(struct packed *p, struct cpu *c, const struct tensor *t, enum quant quant, struct err *e);
/* Takes t as it lies, reading nothing; t's bytes must stay until p is freed. Not while a product of c runs. On error p
 * is empty. */
int packed_raw(struct packed *p, struct cpu *c, const struct tensor *t, struct err *e);
/* Whether packed_raw is worth it: t lies in memory and packing it with quant only moves bytes. */
bool packed_may_be_raw(const struct tensor *t, enum quant quant);
/* The end of that state, in pieces and by any threads: packed_fill packs panels [from, to) to their place (scratch:
 * packed_fill_scratch bytes), and when all were packed packed_settled says so to products. Those that began before may
 * read the source a little longer. Neither can fail. */
void packed_fill(struct packed *p, const struct cpu_isa *isa, void *scratch, int from, int to);
size_t packed_fill_scratch(const struct packed *p);
int packed_n_panels(const struct packed *p);
void packed_settled(struct packed *p);
bool packed_is_raw(const struct packed *p);
void packed_free(struct packed *p);
/* Row `row` of a matrix that is not raw, decoded to f32 (tests, tied embeddings). */
void packed_row(const struct packed *p, int row, float *dst);

/* One product: y[i][r] (+)= bias[r] + sum_k w[r][k] * x[i][k], for i < n. */
struct matmul {
    const struct packed *w;
    const float *bias; /* [rows] or NULL; added after the sum */
    float *y;          /* [n][ldy] */
    int ldy;
    bool add; /* y += (the residual) instead of y = ; the sum is formed first, then added to y */
};

/* Scratch that cpu_matmul and cpu_attend may need for passes of up to max_rows rows. Call once per stage. */
int cpu_reserve(struct cpu *c, size_t bytes, struct err *e);
size_t cpu_matmul_scratch(const struct packed *w, int max_rows);
size_t cpu_attend_scratch(const struct cpu *c, int n_heads, int n_kv_heads, int head_dim, int max_rows);

/* Runs products that share x [n][ldx] in one go of the pool. All w have the same cols. */
void cpu_matmul(struct cpu *c, const struct matmul *jobs, int n_jobs, const float *x, int ldx, int n);

/* Causal attention of a batch over slots. For row i and head h (kv head h / (n_heads / n_kv_heads)):
 * out[i][h] = softmax(scale * q[i][h] . K[slots of row i]) V. Keys in logical order; with window > 0 only the last
 * `window` of them. Online softmax over blocks of 64 logical positions aligned to position 0, combined in order. */
struct attend {
    const struct batch *batch;
    const float *q;     /* [n][n_heads][head_dim], RoPE applied */
    float *out;         /* [n][n_heads][head_dim] */
    const void *k, *v;  /* one layer: kv head h, slot s at element h * head_stride + s * head_dim */
    enum dtype kv_type; /* F16 or F32 */
    size_t head_stride; /* elements */
    int n_heads, n_kv_heads, head_dim;
    float scale;
    int window;
};
void cpu_attend(struct cpu *c, const struct attend *a);

/* y[i] = x[i] / rms(x[i]) * w for n rows of width cols (y may be x). Zhang & Sennrich 2019. */
void cpu_rmsnorm(struct cpu *c, float *y, int ldy, const float *x, int ldx, const float *w, int n, int cols, float eps);

/* gate[i] = silu(gate[i]) * up[i] over n rows of width cols. */
void cpu_silu_mul(struct cpu *c, float *gate, const float *up, int n, int cols);

/* Rotates the first and second half of each head of x [n][ldx] (n_heads heads of head_dim) as HF does:
 * x1' = x1 cos - x2 sin, x2' = x2 cos + x1 sin, with cs [n][head_dim] = cos then sin per row. */
void cpu_rope(struct cpu *c, float *x, int ldx, const float *cs, int n, int n_heads, int head_dim);

/* cos and sin of (float)pos * inv_freq[i] for n positions, into cs [n][head_dim]: cos first, then sin. Own range
 * reduction and polynomials, so that every machine gives the same bits. inv_freq [head_dim / 2]. */
void cpu_rope_table(float *cs, const uint32_t *pos, int n, const float *inv_freq, int head_dim);

/* Writes rows of K or V into slots: dst[h * head_stride + slot[i] * head_dim] = x[i][h]. DT_E4M3: rounded to what fp8
 * would hold (core/model/e4m3.h), and written as f16. */
void cpu_kv_write(struct cpu *c, void *dst, enum dtype kv_type, size_t head_stride, const float *x, int ldx,
                  const struct batch *b, int n_kv_heads, int head_dim);

/* Measured limits of this machine for bench: bytes/s of reading memory far larger than any cache, and FLOP/s of
 * independent fused multiply-adds, both with the pool's threads. Takes about a second. */
struct cpu_limits {
    double read_bytes_s;
    double fma_flop_s;
};
void cpu_measure_limits(struct cpu *c, struct cpu_limits *out);

#endif
