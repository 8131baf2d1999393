/* test/gpu/emu/simt_emu.h - gpu/simt.cuh in ordinary C++: what a kernel may say, for the emulated card.
 *
 * Each thread of a block is a fiber; it runs until it has to wait for others, so that a barrier that is missing shows
 * as a wrong result. Warp operations take place when all 32 lanes have come to the same one. A kernel that breaks a
 * rule ends the program with a message. Differences to a card: mma sums in f32 in the order of k, where tensor cores
 * sum several products at a time and round otherwise; exp2_of is exact to rounding. */
#ifndef EMU_SIMT_EMU_H
#define EMU_SIMT_EMU_H

#include <cstring>
#include <math.h>

#define DEVICE [[maybe_unused]] static inline
#define UNROLL
#define SHARED                     static thread_local __attribute__((aligned(16)))
#define DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(emu::dynamic_shared)
#define KERNEL(threads, name, arg)                                                                                     \
    static void name(arg);                                                                                             \
    static emu::kernel emu_kernel_##name(#name, threads, name);                                                        \
    static void name(arg)
#define KERNEL_INSTANCE(threads, name, type, ...)                                                                      \
    static void name(type a) {                                                                                         \
        __VA_ARGS__(a);                                                                                                \
    }                                                                                                                  \
    static emu::kernel emu_kernel_##name(#name, threads, name);
#define KERNEL_INSTANCE_BLOCKS(threads, blocks, ...) KERNEL_INSTANCE(threads, __VA_ARGS__)

namespace emu {

/* What KERNEL leaves behind: a list of all kernels of the library. */
struct kernel {
    template <class A>
    kernel(const char *name, int threads, void (*body)(A))
        : name(name), threads(threads), arg_bytes(sizeof(A)), body(reinterpret_cast<void (*)()>(body)),
          call(call_as<A>), next(all) {
        all = this;
    }
    const char *name;
    int threads;      /* as many as a block of it may have */
    size_t arg_bytes; /* of its struct */
    void (*body)();
    void (*call)(void (*body)(), const void *arg);
    kernel *next;
    static kernel *all;
    /* What of the SHARED variables of the library it was seen to write. */
    size_t shared_from = SIZE_MAX, shared_to = 0;
    int n_seen = 0;
    bool watched = false; /* a block that began early did not write */

  private:
    template <class A> static void call_as(void (*body)(), const void *arg) {
        reinterpret_cast<void (*)(A)>(body)(*static_cast<const A *>(arg));
    }
};

struct dim {
    int x, y, z;
};
extern int thread; /* of the one that runs */
extern dim block, grid;
extern int n_threads;
extern void *dynamic_shared;

/* Where in a kernel something is called. */
struct where {
    const char *file;
    int line;
};
#define EMU_WHERE emu::where at = {__builtin_FILE(), __builtin_LINE()}

enum class op {
    sync_block,
    await_predecessor,
    sync_warp,
    shuffle,
    mma_bf16,
    mma_f16,
    load_matrices,
    load_matrices_transposed
};
void sync_block(where at);
void await_predecessor(where at);
void release_successor();
/* Waits for the other lanes; the operation is done on all lanes' operands when the last has come. */
void warp_op(op kind, where at, void *out, const void *a, const void *b);
void copy_async(void *to_shared, const void *from, where at);
void copy_commit();
void copy_wait(int groups);
void check_aligned(const void *p, const char *what, where at);

inline float f32_of_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
inline uint32_t bits_of_f32(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}
inline uint16_t bf16_of(float f) {
    uint32_t u = bits_of_f32(f);
    return f != f ? 0x7fff : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
inline float f32_of_bf16(uint16_t h) {
    return f32_of_bits((uint32_t)h << 16);
}
/* Rounded once: what lies between two f32 becomes the odd one of them, which bf16_of then rounds as it would have. */
inline uint16_t fma_of_bf16(uint16_t a, uint16_t b, uint16_t c) {
    double exact = (double)f32_of_bf16(a) * (double)f32_of_bf16(b) + (double)f32_of_bf16(c);
    float f = (float)exact;
    uint32_t u = bits_of_f32(f);
    if ((double)f != exact)
        u = (u - (fabs((double)f) > fabs(exact))) | 1;
    return bf16_of(f32_of_bits(u));
}
uint16_t f16_of(float f);
inline float f32_of_f16(uint16_t h) {
    uint32_t u = bits_of_f32(f32_of_bits((uint32_t)(h & 0x7fff) << 13) * 0x1p112f);
    u |= (h & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
    return f32_of_bits(u | (uint32_t)(h & 0x8000) << 16);
}

} // namespace emu

DEVICE int thread_x() {
    return emu::thread;
}
DEVICE int block_x() {
    return emu::block.x;
}
DEVICE int block_y() {
    return emu::block.y;
}
DEVICE int block_z() {
    return emu::block.z;
}
DEVICE int grid_x() {
    return emu::grid.x;
}
DEVICE int grid_z() {
    return emu::grid.z;
}
DEVICE int block_threads() {
    return emu::n_threads;
}
DEVICE void sync_block(EMU_WHERE) {
    emu::sync_block(at);
}
DEVICE void await_predecessor(EMU_WHERE) {
    emu::await_predecessor(at);
}
DEVICE void release_successor() {
    emu::release_successor();
}
DEVICE void sync_warp(EMU_WHERE) {
    emu::warp_op(emu::op::sync_warp, at, nullptr, nullptr, nullptr);
}
DEVICE uint32_t shuffle(uint32_t v, int lane, EMU_WHERE) {
    lane &= 31;
    emu::warp_op(emu::op::shuffle, at, &v, &v, &lane);
    return v;
}
DEVICE float shuffle(float v, int lane, EMU_WHERE) {
    lane &= 31;
    emu::warp_op(emu::op::shuffle, at, &v, &v, &lane);
    return v;
}
DEVICE float shuffle_xor(float v, int mask, EMU_WHERE) {
    return shuffle(v, emu::thread ^ mask, at);
}

DEVICE u32x4 load_once(const void *p, EMU_WHERE) {
    emu::check_aligned(p, "load_once", at);
    u32x4 r;
    memcpy(&r, p, sizeof r);
    return r;
}

DEVICE void mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], EMU_WHERE) {
    emu::warp_op(emu::op::mma_bf16, at, d, a, b);
}
DEVICE void mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2], EMU_WHERE) {
    emu::warp_op(emu::op::mma_f16, at, d, a, b);
}
DEVICE void load_matrices(uint32_t r[4], const void *row, EMU_WHERE) {
    emu::warp_op(emu::op::load_matrices, at, r, row, nullptr);
}
DEVICE void load_matrices_transposed(uint32_t r[4], const void *row, EMU_WHERE) {
    emu::warp_op(emu::op::load_matrices_transposed, at, r, row, nullptr);
}
DEVICE void copy_async(void *shared, const void *global, EMU_WHERE) {
    emu::copy_async(shared, global, at);
}
DEVICE void copy_commit() {
    emu::copy_commit();
}
template <int n> DEVICE void copy_wait() {
    emu::copy_wait(n);
}

DEVICE uint32_t pack_bf16(float a, float b) {
    return emu::bf16_of(a) | (uint32_t)emu::bf16_of(b) << 16;
}
DEVICE uint32_t pack_f16(float a, float b) {
    return emu::f16_of(a) | (uint32_t)emu::f16_of(b) << 16;
}
DEVICE uint32_t mul_f16(uint32_t a, uint32_t b) { /* products of f16 are exact in f32 */
    return pack_f16(emu::f32_of_f16((uint16_t)a) * emu::f32_of_f16((uint16_t)b),
                    emu::f32_of_f16((uint16_t)(a >> 16)) * emu::f32_of_f16((uint16_t)(b >> 16)));
}
DEVICE uint32_t fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
    return emu::fma_of_bf16((uint16_t)a, (uint16_t)b, (uint16_t)c) |
           (uint32_t)emu::fma_of_bf16((uint16_t)(a >> 16), (uint16_t)(b >> 16), (uint16_t)(c >> 16)) << 16;
}
DEVICE float from_f16(uint16_t h) {
    return emu::f32_of_f16(h);
}
DEVICE uint16_t to_f16(float f) {
    return emu::f16_of(f);
}
DEVICE float exp2_of(float x) {
    float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}
DEVICE float root_of(float x) {
    return sqrtf(x);
}
DEVICE float divide(float a, float b) {
    return a / b;
}

#endif
