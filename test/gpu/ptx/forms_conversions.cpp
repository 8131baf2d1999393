/* test/gpu/ptx/forms_conversions.cpp - mov, cvt, cvta. */
#include "test/gpu/ptx/float16.h"
#include "test/gpu/ptx/lanes.h"

namespace ptx {

namespace {

typedef uint16_t u16;
typedef int16_t s16;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64;
typedef int64_t s64;

template <class T> T same(T a) {
    return a;
}

/* Between integers in registers of R and D: the lower bits, taken with their sign or without, in both types. A form's
 * bytes and n hold the types, so that there is one function for all of a register's width. */
struct integer_type {
    const char *name;
    uint8_t bytes;
    bool is_signed;
};
const integer_type integer_types[] = {{"u8", 1, false},  {"s8", 1, true},  {"u16", 2, false}, {"s16", 2, true},
                                      {"u32", 4, false}, {"s32", 4, true}, {"u64", 8, false}, {"s64", 8, true}};
u64 lower(u64 v, int unused, bool is_signed) {
    return is_signed ? (u64)((s64)(v << unused) >> unused) : v << unused >> unused;
}
template <class D, class R> void convert_integer(warp &w, const instruction &i) {
    const integer_type &to = integer_types[i.bytes], &from = integer_types[i.n];
    int unused_to = 64 - 8 * to.bytes, unused_from = 64 - 8 * from.bytes;
    bool signed_to = to.is_signed, signed_from = from.is_signed;
    word_for<D> *d = row<D>(w, i.at[0]);
    const word_for<R> *a = row<R>(w, i.at[1]);
    each_lane(w.mask, [&](int l) { d[l] = (D)lower(lower(a[l], unused_from, signed_from), unused_to, signed_to); });
}

void add_integers(forms &f) {
    static const struct {
        size_t to, from; /* bytes of registers */
        const char *operands;
        void (*run)(warp &w, const instruction &i);
    } shapes[] = {
        {2, 2, "h=h", convert_integer<u16, u16>}, {2, 4, "h=r", convert_integer<u16, u32>},
        {2, 8, "h=l", convert_integer<u16, u64>}, {4, 2, "r=h", convert_integer<u32, u16>},
        {4, 4, "r=r", convert_integer<u32, u32>}, {4, 8, "r=l", convert_integer<u32, u64>},
        {8, 2, "l=h", convert_integer<u64, u16>}, {8, 4, "l=r", convert_integer<u64, u32>},
        {8, 8, "l=l", convert_integer<u64, u64>},
    };
    for (uint8_t to = 0; to < 8; to++)
        for (uint8_t from = 0; from < 8; from++)
            for (const auto &s : shapes)
                if (s.to >= integer_types[to].bytes && s.from >= integer_types[from].bytes)
                    f.add(std::string("cvt.") + integer_types[to].name + "." + integer_types[from].name,
                          form{s.operands, s.run, kind::plain, space::generic, to, from});
}

template <class S, class R> float float_from(R a) {
    return (float)(S)a;
}
/* Towards zero; what does not fit becomes the nearest that does, what is no number 0. */
template <class D> D truncated(float a) {
    const float limit = std::is_signed_v<D> ? 0x1p31f : 0x1p32f;
    if (a != a)
        return 0;
    if (a >= limit)
        return (D)(std::is_signed_v<D> ? 0x7fffffff : 0xffffffff);
    if (a <= (std::is_signed_v<D> ? -limit : 0.0f))
        return (D)(std::is_signed_v<D> ? 0x80000000 : 0);
    return (D)a;
}

float from_f16(u16 h) {
    return widen_f16(h);
}
float from_bf16(u16 h) {
    return widen_bf16(h);
}
u16 to_f16(float a) {
    return f16_of(a);
}
u16 to_bf16(float a) {
    return bf16_of(a);
}
/* The first source is the upper half. */
u32 to_f16x2(float upper, float lower) {
    return (u32)to_f16(upper) << 16 | to_f16(lower);
}
u32 to_bf16x2(float upper, float lower) {
    return (u32)to_bf16(upper) << 16 | to_bf16(lower);
}

/* Vectors: the first part is the lowest. */
u32 join_halves(u16 a, u16 b) {
    return a | (u32)b << 16;
}
u64 join_words(u32 a, u32 b) {
    return a | (u64)b << 32;
}
void part_halves(warp &w, const instruction &i) {
    each_lane(w.mask, [&](int l) {
        u32 v = w.narrow[i.at[2] + (u32)l];
        w.narrow[i.at[0] + (u32)l] = v & 0xffff;
        w.narrow[i.at[1] + (u32)l] = v >> 16;
    });
}
void part_words(warp &w, const instruction &i) {
    each_lane(w.mask, [&](int l) {
        u64 v = w.wide[i.at[2] + (u32)l];
        w.narrow[i.at[0] + (u32)l] = (u32)v;
        w.narrow[i.at[1] + (u32)l] = (u32)(v >> 32);
    });
}

u64 into_shared_window(u64 a) {
    return a + SHARED_WINDOW;
}
u64 into_local_window(u64 a) {
    return a + LOCAL_WINDOW;
}
template <uint64_t window> u64 out_of_window(u64 a) {
    if (a - window >= WINDOW_BYTES)
        fail(error::illegal_address, "address 0x%llx does not lie in that space", (unsigned long long)a);
    return a - window;
}

} // namespace

void add_conversions(forms &f) {
    for (const char *type : {"b16", "u16", "s16", "f16"})
        f.add(std::string("mov.") + type, "h=h", map<same<u16>>::run);
    for (const char *type : {"b32", "u32", "s32", "f32"})
        f.add(std::string("mov.") + type, "r=r", map<same<u32>>::run);
    for (const char *type : {"b64", "u64", "s64", "f64"})
        f.add(std::string("mov.") + type, "l=l", map<same<u64>>::run);
    f.add("mov.b32", "r={hh}", map<join_halves>::run);
    f.add("mov.b32", "{hh}=r", part_halves);
    f.add("mov.b64", "l={rr}", map<join_words>::run);
    f.add("mov.b64", "{rr}=l", part_words);

    add_integers(f);
    f.add("cvt.rn.f32.u8", "r=h", map<float_from<uint8_t, u16>>::run);
    f.add("cvt.rn.f32.s8", "r=h", map<float_from<int8_t, u16>>::run);
    f.add("cvt.rn.f32.u16", "r=h", map<float_from<u16, u16>>::run);
    f.add("cvt.rn.f32.s16", "r=h", map<float_from<s16, u16>>::run);
    f.add("cvt.rn.f32.u32", "r=r", map<float_from<u32, u32>>::run);
    f.add("cvt.rn.f32.s32", "r=r", map<float_from<s32, u32>>::run);
    f.add("cvt.rn.f32.s64", "r=l", map<float_from<s64, u64>>::run);
    f.add("cvt.rn.f32.u64", "r=l", map<float_from<u64, u64>>::run);
    f.add("cvt.rzi.s32.f32", "r=r", map<truncated<s32>>::run);
    f.add("cvt.rzi.u32.f32", "r=r", map<truncated<u32>>::run);
    f.add("cvt.f32.f16", "r=h", map<from_f16>::run);
    f.add("cvt.f32.bf16", "r=h", map<from_bf16>::run);
    f.add("cvt.rn.f16.f32", "h=r", map<to_f16>::run);
    f.add("cvt.rn.bf16.f32", "h=r", map<to_bf16>::run);
    f.add("cvt.rn.f16x2.f32", "r=rr", map<to_f16x2>::run);
    f.add("cvt.rn.bf16x2.f32", "r=rr", map<to_bf16x2>::run);

    f.add("cvta.to.global.u64", "l=l", map<same<u64>>::run);
    f.add("cvta.global.u64", "l=l", map<same<u64>>::run);
    f.add("cvta.shared.u64", "l=l", map<into_shared_window>::run);
    f.add("cvta.local.u64", "l=l", map<into_local_window>::run);
    f.add("cvta.to.shared.u64", "l=l", map<out_of_window<SHARED_WINDOW>>::run);
    f.add("cvta.to.local.u64", "l=l", map<out_of_window<LOCAL_WINDOW>>::run);
}

} // namespace ptx
