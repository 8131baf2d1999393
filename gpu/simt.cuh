/* gpu/simt.cuh - what kernels are written in: on a card, CUDA C++ and its PTX; in test/gpu/emu, ordinary C++ in which
 * each thread of a block is a fiber. Everything that a kernel needs beyond plain C++ is named here, so that the same
 * source text runs in tests on machines without a card.
 *
 * Rules for kernels: one struct argument by value; KERNEL or KERNEL_INSTANCE makes it known by name; every kernel calls
 * release_successor and await_predecessor; warp operations are called by all 32 threads of a warp; no recursion, no
 * printf, no library calls but those below; products and sums that shall be fused say fmaf. */
#ifndef GPU_SIMT_CUH
#define GPU_SIMT_CUH

#include "gpu/kernels.h"

struct alignas(16) u32x4 {
    uint32_t v[4];
};
struct alignas(8) u32x2 {
    uint32_t v[2];
};

/* A or B, as yes says. */
template <bool yes, class A, class B> struct pick { typedef A type; };
template <class A, class B> struct pick<false, A, B> { typedef B type; };

#ifdef __CUDACC__

#define DEVICE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
/* Memory of a block, 16-byte aligned, of undefined content when the block starts. */
#define SHARED __shared__ __align__(16)
/* Memory whose size the launch says, 16-byte aligned: DYNAMIC_SHARED(float, buf); */
#define DYNAMIC_SHARED(type, name)                                                                                     \
    extern __shared__ __align__(16) unsigned char simt_dynamic[];                                                      \
    type *name = reinterpret_cast<type *>(simt_dynamic)
/* KERNEL(threads, name, struct x_args a) { ... }: name as the host asks for it. */
#define KERNEL(threads, name, arg) extern "C" __global__ void __launch_bounds__(threads) name(arg)
/* The same for an instance of a template: KERNEL_INSTANCE(128, matmul_bf16_8, struct matmul_args, matmul<DT_BF16, 1>)
 */
#define KERNEL_INSTANCE(threads, name, type, ...)                                                                      \
    extern "C" __global__ void __launch_bounds__(threads) name(type a) {                                               \
        __VA_ARGS__(a);                                                                                                \
    }
/* And with room for so many of its blocks on a multiprocessor at least, which sets a limit to its registers. Where
 * nothing is said, the compiler may rather spill some than do without another block. */
#define KERNEL_INSTANCE_BLOCKS(threads, blocks, name, type, ...)                                                       \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(type a) {                                       \
        __VA_ARGS__(a);                                                                                                \
    }

DEVICE int thread_x() {
    return (int)threadIdx.x;
}
DEVICE int block_x() {
    return (int)blockIdx.x;
}
DEVICE int block_y() {
    return (int)blockIdx.y;
}
DEVICE int block_z() {
    return (int)blockIdx.z;
}
DEVICE int grid_x() {
    return (int)gridDim.x;
}
DEVICE int grid_z() {
    return (int)gridDim.z;
}
DEVICE int block_threads() {
    return (int)blockDim.x;
}
DEVICE void sync_block() {
    __syncthreads();
}
DEVICE void sync_warp() {
    __syncwarp();
}

/* A launch of compute capability 9.0 and later may begin before the kernels ahead of it in the stream have ended
 * (programmatic dependent launch), so that its blocks are there, and their first weights under way, when those have.
 *
 * await_predecessor: returns when the kernel before has ended, with all that it wrote visible. Each thread calls it
 * once, all of a block in the same place, on every way to the end: a kernel that ended without would let the next one
 * go on while its own predecessor still runs. Before it a thread touches no memory that anything in a pass writes, and
 * writes none, not even its own: weights, their scales and its arguments are all there is to read.
 *
 * release_successor: the next kernel may begin, up to its own await_predecessor. The card does so when all blocks of
 * this one have called it or ended, so all of them are running then, and those of the next one take but what they leave
 * free. Nothing of correctness depends on it, as whoever is released has to wait for the end of this kernel all the
 * same; so each kernel calls it first thing, also before its own wait. Then a product's blocks get in while the
 * product two launches ahead has its last wave, past the norm of few blocks that comes between. */
DEVICE void await_predecessor() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
DEVICE void release_successor() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
DEVICE float shuffle_xor(float v, int mask) {
    return __shfl_xor_sync(~0u, v, mask);
}
DEVICE float shuffle(float v, int lane) {
    return __shfl_sync(~0u, v, lane);
}
DEVICE uint32_t shuffle(uint32_t v, int lane) {
    return __shfl_sync(~0u, v, lane);
}

/* 16 bytes that are read once (weights): past the first-level cache. Not by ld.global.nc: ptxas believes that such a
 * load may happen at any time and puts it behind await_predecessor, and it need not see what the predecessor wrote. */
DEVICE u32x4 load_once(const void *p) {
    u32x4 r;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.v[0]), "=r"(r.v[1]), "=r"(r.v[2]), "=r"(r.v[3])
                 : "l"(p));
    return r;
}

/* d += a b for a 16 x 16 (rows of weights or queries), b 16 x 8; lane l = 4 g + t holds of a: (g, 2t), (g + 8, 2t),
 * (g, 2t + 8), (g + 8, 2t + 8), each with its neighbour to the right; of b: (2t, g) and (2t + 8, g), each with its
 * neighbour below; of d: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1). Lower half of a word first. */
DEVICE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* Four 8 x 8 matrices of 16-bit elements out of shared memory; lane 8 i + j gives the address of row j of matrix i (16
 * bytes, aligned) and gets of each matrix row l / 4, elements 2 (l % 4) and + 1; transposed: of its transpose. */
DEVICE void load_matrices(uint32_t r[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
DEVICE void load_matrices_transposed(uint32_t r[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
/* Asynchronous copies of 16 bytes from device to shared memory (both aligned): copy, commit a group, wait until at most
 * n groups are under way (then sync_block for the others' parts). */
DEVICE void copy_async(void *shared, const void *global) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(global) : "memory");
}
DEVICE void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int n> DEVICE void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}

/* Two floats as 16-bit elements of one word, a in the lower half; nearest even. */
DEVICE uint32_t pack_bf16(float a, float b) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
    return r;
}
DEVICE uint32_t pack_f16(float a, float b) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(b), "f"(a));
    return r;
}
/* a b for pairs of f16, nearest even, subnormals kept. */
DEVICE uint32_t mul_f16(uint32_t a, uint32_t b) {
    uint32_t d;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
/* a b + c for pairs of bf16, each rounded once. */
DEVICE uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
DEVICE float from_f16(uint16_t h) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}
DEVICE uint16_t to_f16(float f) {
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}
DEVICE float exp2_of(float x) { /* 2^x, within 2 ulp; results under 2^-126 become 0; exp2_of(-inf) is 0 */
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float root_of(float x) {
    return __fsqrt_rn(x);
}
DEVICE float divide(float a, float b) {
    return __fdiv_rn(a, b);
}

#else
#include "test/gpu/emu/simt_emu.h"
#endif

DEVICE uint32_t as_bits(float f) {
    union {
        float f;
        uint32_t u;
    } v;
    v.f = f;
    return v.u;
}
DEVICE float as_float(uint32_t u) {
    union {
        uint32_t u;
        float f;
    } v;
    v.u = u;
    return v.f;
}
/* bf16 is the upper half of an f32. */
DEVICE float from_bf16(uint32_t h) {
    return as_float(h << 16);
}
DEVICE float infinity() {
    union {
        uint32_t u;
        float f;
    } v;
    v.u = 0x7f800000u;
    return v.f;
}
/* x as hi + lo: 16 bits of its mantissa. Pairs, as mma takes them. */
DEVICE void split_bf16(float a, float b, uint32_t *hi, uint32_t *lo) {
    *hi = pack_bf16(a, b);
    *lo = pack_bf16(a - from_bf16(*hi & 0xffff), b - from_bf16(*hi >> 16));
}

#endif
