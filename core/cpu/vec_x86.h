/* core/cpu/vec_x86.h - what the AVX2 and AVX-512 kernels share: transposing 16 rows in registers. */
#ifndef CORE_CPU_VEC_X86_H
#define CORE_CPU_VEC_X86_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define PREFETCH(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)

static inline __m256i load_dwords(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* v[i] = dword i of each of the 8 rows. */
static inline void transpose_8x8(__m256i v[8], const uint8_t *const rows[8], size_t off) {
    __m256i a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        __m256i x = load_dwords(rows[i] + off), y = load_dwords(rows[i + 1] + off);
        a[i] = _mm256_unpacklo_epi32(x, y);
        a[i + 1] = _mm256_unpackhi_epi32(x, y);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
    }
}

static inline void dwords_transpose(uint8_t *dst, const uint8_t *const rows[16], size_t off) {
    __m256i lo[8], hi[8], *to = (__m256i *)(void *)dst;
    transpose_8x8(lo, rows, off);
    transpose_8x8(hi, rows + 8, off);
    for (size_t i = 0; i < 8; i++) {
        _mm256_storeu_si256(to + 2 * i, lo[i]);
        _mm256_storeu_si256(to + 2 * i + 1, hi[i]);
    }
}

static inline void halves_transpose(uint8_t *dst, const uint8_t *const rows[16], size_t off) {
    __m256i lo[8], hi[8], *to = (__m256i *)(void *)dst, m = _mm256_set1_epi32(0xffff);
    transpose_8x8(lo, rows, off);
    transpose_8x8(hi, rows + 8, off);
    for (size_t i = 0; i < 8; i++) {
        __m256i even = _mm256_packus_epi32(_mm256_and_si256(lo[i], m), _mm256_and_si256(hi[i], m));
        __m256i odd = _mm256_packus_epi32(_mm256_srli_epi32(lo[i], 16), _mm256_srli_epi32(hi[i], 16));
        _mm256_storeu_si256(to + 2 * i, _mm256_permute4x64_epi64(even, 0xd8));
        _mm256_storeu_si256(to + 2 * i + 1, _mm256_permute4x64_epi64(odd, 0xd8));
    }
}

/* y [k][size] = x [size][ldx] for the first columns, up to 8 rows; returns how many. Each column is stored as 8 floats
 * of which the next one overwrites what is too much, so the last 8 columns are left to the caller. */
static inline int columns_interleave(float *y, const float *x, size_t ldx, int size, int cols) {
    const uint8_t *rows[8];
    int done = 0;
    if (size > 8)
        return 0;
    for (int r = 0; r < 8; r++)
        rows[r] = (const uint8_t *)(x + (size_t)(r < size ? r : 0) * ldx);
    for (; done + 16 <= cols; done += 8) {
        __m256i v[8];
        transpose_8x8(v, rows, (size_t)done * sizeof *x);
        for (int i = 0; i < 8; i++)
            _mm256_storeu_si256((__m256i *)(void *)(y + (size_t)(done + i) * (size_t)size), v[i]);
    }
    return done;
}
#endif
