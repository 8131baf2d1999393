/* test/gpu/ptx/forms_arithmetic.cpp - integers, bits, predicates. */
#include "test/gpu/ptx/lanes.h"

namespace ptx {

namespace {

typedef uint16_t u16;
typedef int16_t s16;
typedef uint32_t u32;
typedef int32_t s32;
typedef uint64_t u64;
typedef int64_t s64;

/* Sums and products that do not fit lose their upper bits, of signed numbers as well. */
template <class T> T add(T a, T b) {
    return (T)((u64)a + (u64)b);
}
template <class T> T sub(T a, T b) {
    return (T)((u64)a - (u64)b);
}
template <class T> T mul_lo(T a, T b) {
    return (T)((u64)a * (u64)b);
}
template <class T> T mad_lo(T a, T b, T c) {
    return (T)((u64)a * (u64)b + (u64)c);
}
template <class D, class T> D mul_wide(T a, T b) {
    return (D)((D)a * (D)b);
}
template <class D, class T> D mad_wide(T a, T b, D c) {
    return (D)((u64)((D)a * (D)b) + (u64)c);
}
template <class D, class T> T mul_hi(T a, T b) {
    return (T)(((D)a * (D)b) >> (8 * sizeof(T)));
}
/* By 0, and of the lowest by -1: the manual leaves the result open. */
template <class T> T divide(T a, T b) {
    if (b == 0)
        fail(error::launch_failed, "a division by zero");
    return (std::is_signed_v<T> && b == (T)-1) ? sub<T>(0, a) : (T)(a / b);
}
template <class T> T remainder(T a, T b) {
    if (b == 0)
        fail(error::launch_failed, "a division by zero");
    return (std::is_signed_v<T> && b == (T)-1) ? 0 : (T)(a % b);
}
template <class T> T smaller(T a, T b) {
    return a < b ? a : b;
}
template <class T> T larger(T a, T b) {
    return a > b ? a : b;
}
template <class T> T negate(T a) {
    return sub<T>(0, a);
}
template <class T> T absolute(T a) {
    return a < 0 ? sub<T>(0, a) : a;
}

template <class T> T bit_and(T a, T b) {
    return a & b;
}
template <class T> T bit_or(T a, T b) {
    return a | b;
}
template <class T> T bit_xor(T a, T b) {
    return a ^ b;
}
template <class T> T bit_not(T a) {
    return (T)~a;
}
/* By more bits than there are: none is left, or all are the sign. */
template <class T> T shift_left(T a, u32 n) {
    return n < 8 * sizeof(T) ? (T)(a << n) : 0;
}
template <class T> T shift_right(T a, u32 n) {
    return (T)(a >> (n < 8 * sizeof(T) ? n : 8 * sizeof(T) - 1)) &
           (T)(std::is_signed_v<T> || n < 8 * sizeof(T) ? -1 : 0);
}
u32 funnel_left(u32 a, u32 b, u32 n) {
    return (u32)((((u64)b << 32 | a) << (n & 31)) >> 32);
}
u32 funnel_right(u32 a, u32 b, u32 n) {
    return (u32)(((u64)b << 32 | a) >> (n & 31));
}
u32 funnel_left_clamp(u32 a, u32 b, u32 n) {
    return n >= 32 ? a : funnel_left(a, b, n);
}
u32 funnel_right_clamp(u32 a, u32 b, u32 n) {
    return n >= 32 ? b : funnel_right(a, b, n);
}
/* lut has the result for each three bits of a, b and c. */
u32 logic(u32 a, u32 b, u32 c, u32 lut) {
    u32 r = 0;
    for (u32 k = 0; k < 8; k++)
        if (lut >> k & 1)
            r |= (k & 4 ? a : ~a) & (k & 2 ? b : ~b) & (k & 1 ? c : ~c);
    return r;
}
u32 extract(u32 a, u32 from, u32 n) {
    from &= 255;
    n &= 255;
    if (from > 31 || n == 0)
        return 0;
    return (a >> from) & (n > 31 ? ~0u : (1u << n) - 1);
}
/* Signed: above the field comes its highest bit, or a's where it reaches beyond a. */
s32 extract_signed(s32 a, u32 from, u32 n) {
    from &= 255;
    n &= 255;
    if (n == 0)
        return 0;
    u32 top = smaller<u32>(from + n - 1, 31);
    u32 sign = (u32)a >> top & 1 ? ~0u : 0;
    s32 r = 0;
    for (u32 k = 0; k < 32; k++)
        r |= (s32)((k < n && from + k <= 31 ? (u32)a >> (from + k) & 1 : sign & 1) << k);
    return r;
}
u32 insert(u32 a, u32 b, u32 from, u32 n) {
    from &= 255;
    n &= 255;
    u32 mask = from > 31 || n == 0 ? 0 : (n > 31 ? ~0u : (1u << n) - 1) << from;
    return from > 31 ? b : (a << from & mask) | (b & ~mask);
}
u32 population(u32 a) {
    return (u32)__builtin_popcount(a);
}
u32 leading_zeros(u32 a) {
    return a == 0 ? 32 : (u32)__builtin_clz(a);
}

u32 byte_of(u32 a, u32 b, u32 n) {
    return (u32)((((u64)b << 32 | a) >> (8 * n)) & 0xff);
}
/* Each nibble of c chooses one of eight bytes; its highest bit: only the byte's sign, eight times. */
u32 permute(u32 a, u32 b, u32 c) {
    u32 r = 0;
    for (u32 k = 0; k < 4; k++) {
        u32 one = byte_of(a, b, c >> (4 * k) & 7);
        if (c >> (4 * k) & 8)
            one = one & 0x80 ? 0xff : 0;
        r |= one << (8 * k);
    }
    return r;
}
/* The named modes: which byte goes to place k when c says n. */
template <u32 (*from)(u32 n, u32 k)> u32 permute_by(u32 a, u32 b, u32 c) {
    u32 r = 0;
    for (u32 k = 0; k < 4; k++)
        r |= byte_of(a, b, from(c & 3, k)) << (8 * k);
    return r;
}
u32 forward4(u32 n, u32 k) {
    return n + k;
}
u32 backward4(u32 n, u32 k) {
    return (n - k) & 7;
}
u32 replicate8(u32 n, u32) {
    return n;
}
u32 clamp_left(u32 n, u32 k) {
    return larger(n, k);
}
u32 clamp_right(u32 n, u32 k) {
    return smaller(n, k);
}
u32 replicate16(u32 n, u32 k) {
    return 2 * (n & 1) + (k & 1);
}

template <class T> bool equal(T a, T b) {
    return a == b;
}
template <class T> bool unequal(T a, T b) {
    return a != b;
}
template <class T> bool less(T a, T b) {
    return a < b;
}
template <class T> bool less_equal(T a, T b) {
    return a <= b;
}
template <class T> bool greater(T a, T b) {
    return a > b;
}
template <class T> bool greater_equal(T a, T b) {
    return a >= b;
}

template <class T> void select(warp &w, const instruction &i) {
    word_for<T> *d = row<T>(w, i.at[0]);
    const word_for<T> *a = row<T>(w, i.at[1]), *b = row<T>(w, i.at[2]);
    uint32_t p = read_predicate(w, i.at[3]);
    each_lane(w.mask, [&](int l) { d[l] = p >> l & 1 ? a[l] : b[l]; });
}

u32 predicate_and(u32 a, u32 b) {
    return a & b;
}
u32 predicate_or(u32 a, u32 b) {
    return a | b;
}
u32 predicate_xor(u32 a, u32 b) {
    return a ^ b;
}
template <u32 (*f)(u32, u32)> void predicates(warp &w, const instruction &i) {
    write_predicate(w, i.at[0], f(read_predicate(w, i.at[1]), read_predicate(w, i.at[2])));
}
void predicate_not(warp &w, const instruction &i) {
    write_predicate(w, i.at[0], ~read_predicate(w, i.at[1]));
}
void predicate_move(warp &w, const instruction &i) {
    write_predicate(w, i.at[0], read_predicate(w, i.at[1]));
}

void nothing(warp &, const instruction &) {
}

/* What is the same for signed and unsigned numbers is done with the unsigned. */
template <class T> void add_type(forms &f, const std::string &type, const char *two, const char *one, const char *cmp) {
    typedef std::make_unsigned_t<T> U;
    f.add("add." + type, two, map<add<U>>::run);
    f.add("sub." + type, two, map<sub<U>>::run);
    f.add("mul.lo." + type, two, map<mul_lo<U>>::run);
    f.add("div." + type, two, map<divide<T>>::run);
    f.add("rem." + type, two, map<remainder<T>>::run);
    f.add("min." + type, two, map<smaller<T>>::run);
    f.add("max." + type, two, map<larger<T>>::run);
    if constexpr (std::is_signed_v<T>) {
        f.add("neg." + type, one, map<negate<U>>::run);
        f.add("abs." + type, one, map<absolute<T>>::run);
    }
    add_compare<equal<U>>(f, "eq", type.c_str(), cmp);
    add_compare<unequal<U>>(f, "ne", type.c_str(), cmp);
    add_compare<less<T>>(f, "lt", type.c_str(), cmp);
    add_compare<less_equal<T>>(f, "le", type.c_str(), cmp);
    add_compare<greater<T>>(f, "gt", type.c_str(), cmp);
    add_compare<greater_equal<T>>(f, "ge", type.c_str(), cmp);
}

template <class U, class S>
void add_bits(forms &f, const std::string &bits, const char *two, const char *one, const char *shift, const char *cmp,
              const char *sel) {
    f.add("and.b" + bits, two, map<bit_and<U>>::run);
    f.add("or.b" + bits, two, map<bit_or<U>>::run);
    f.add("xor.b" + bits, two, map<bit_xor<U>>::run);
    f.add("not.b" + bits, one, map<bit_not<U>>::run);
    f.add("shl.b" + bits, shift, map<shift_left<U>>::run);
    f.add("shr.u" + bits, shift, map<shift_right<U>>::run);
    f.add("shr.b" + bits, shift, map<shift_right<U>>::run);
    f.add("shr.s" + bits, shift, map<shift_right<S>>::run);
    add_compare<equal<U>>(f, "eq", ("b" + bits).c_str(), cmp);
    add_compare<unequal<U>>(f, "ne", ("b" + bits).c_str(), cmp);
    for (const char *type : {"b", "u", "s"})
        f.add(std::string("selp.") + type + bits, sel, select<U>);
}

} // namespace

void add_arithmetic(forms &f) {
    add_type<u16>(f, "u16", "h=hh", "h=h", "p=hh");
    add_type<s16>(f, "s16", "h=hh", "h=h", "p=hh");
    add_type<u32>(f, "u32", "r=rr", "r=r", "p=rr");
    add_type<s32>(f, "s32", "r=rr", "r=r", "p=rr");
    add_type<u64>(f, "u64", "l=ll", "l=l", "p=ll");
    add_type<s64>(f, "s64", "l=ll", "l=l", "p=ll");
    add_bits<u16, s16>(f, "16", "h=hh", "h=h", "h=hr", "p=hh", "h=hhp");
    add_bits<u32, s32>(f, "32", "r=rr", "r=r", "r=rr", "p=rr", "r=rrp");
    add_bits<u64, s64>(f, "64", "l=ll", "l=l", "l=lr", "p=ll", "l=llp");
    f.add("selp.f32", "r=rrp", select<u32>);
    f.add("selp.f64", "l=llp", select<u64>);

    f.add("mad.lo.s32", "r=rrr", map<mad_lo<u32>>::run);
    f.add("mad.lo.u32", "r=rrr", map<mad_lo<u32>>::run);
    f.add("mad.lo.s64", "l=lll", map<mad_lo<u64>>::run);
    f.add("mad.lo.u64", "l=lll", map<mad_lo<u64>>::run);
    f.add("mad.lo.s16", "h=hhh", map<mad_lo<u16>>::run);
    f.add("mul.wide.s16", "r=hh", map<mul_wide<s32, s16>>::run);
    f.add("mul.wide.u16", "r=hh", map<mul_wide<u32, u16>>::run);
    f.add("mul.wide.s32", "l=rr", map<mul_wide<s64, s32>>::run);
    f.add("mul.wide.u32", "l=rr", map<mul_wide<u64, u32>>::run);
    f.add("mad.wide.s32", "l=rrl", map<mad_wide<s64, s32>>::run);
    f.add("mad.wide.u32", "l=rrl", map<mad_wide<u64, u32>>::run);
    f.add("mul.hi.s32", "r=rr", map<mul_hi<s64, s32>>::run);
    f.add("mul.hi.u32", "r=rr", map<mul_hi<u64, u32>>::run);

    f.add("shf.l.wrap.b32", "r=rrr", map<funnel_left>::run);
    f.add("shf.r.wrap.b32", "r=rrr", map<funnel_right>::run);
    f.add("shf.l.clamp.b32", "r=rrr", map<funnel_left_clamp>::run);
    f.add("shf.r.clamp.b32", "r=rrr", map<funnel_right_clamp>::run);
    f.add("lop3.b32", "r=rrrr", map<logic>::run);
    f.add("bfe.u32", "r=rrr", map<extract>::run);
    f.add("bfe.s32", "r=rrr", map<extract_signed>::run);
    f.add("bfi.b32", "r=rrrr", map<insert>::run);
    f.add("popc.b32", "r=r", map<population>::run);
    f.add("clz.b32", "r=r", map<leading_zeros>::run);
    f.add("prmt.b32", "r=rrr", map<permute>::run);
    f.add("prmt.b32.f4e", "r=rrr", map<permute_by<forward4>>::run);
    f.add("prmt.b32.b4e", "r=rrr", map<permute_by<backward4>>::run);
    f.add("prmt.b32.rc8", "r=rrr", map<permute_by<replicate8>>::run);
    f.add("prmt.b32.ecl", "r=rrr", map<permute_by<clamp_left>>::run);
    f.add("prmt.b32.ecr", "r=rrr", map<permute_by<clamp_right>>::run);
    f.add("prmt.b32.rc16", "r=rrr", map<permute_by<replicate16>>::run);

    f.add("and.pred", "p=pp", predicates<predicate_and>);
    f.add("or.pred", "p=pp", predicates<predicate_or>);
    f.add("xor.pred", "p=pp", predicates<predicate_xor>);
    f.add("not.pred", "p=p", predicate_not);
    f.add("mov.pred", "p=p", predicate_move);

    /* Launches here do not overlap, so that there is nothing to wait for. */
    f.add("griddepcontrol.wait", "=", nothing);
    f.add("griddepcontrol.launch_dependents", "=", nothing);
}

} // namespace ptx
