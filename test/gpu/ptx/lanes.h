/* test/gpu/ptx/lanes.h - what a lane computes for itself, as a function of values, made into what a warp does. */
#ifndef PTX_LANES_H
#define PTX_LANES_H

#include "test/gpu/ptx/forms.h"

#include <tuple>
#include <type_traits>
#include <utility>

namespace ptx {

/* Rows have words of 32 bits, which 16-bit values share the lower half of, or of 64. */
template <class T> using word_for = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T> inline word_for<T> *row(warp &w, uint32_t at) {
    if constexpr (sizeof(T) == 8)
        return &w.wide[at];
    else
        return &w.narrow[at];
}
template <class T> inline T value(word_for<T> word) {
    if constexpr (sizeof(T) < 4)
        return (T)word;
    else {
        T v;
        memcpy(&v, &word, sizeof v);
        return v;
    }
}
template <class T> inline word_for<T> word_of(T v) {
    if constexpr (sizeof(T) < 4)
        return (std::make_unsigned_t<T>)v;
    else {
        word_for<T> word;
        memcpy(&word, &v, sizeof v);
        return word;
    }
}

inline uint32_t read_predicate(const warp &w, uint32_t at) {
    return at == NONE ? ~0u : at == NONE - 1 ? 0 : w.predicates[at];
}
inline void write_predicate(warp &w, uint32_t at, uint32_t bits) {
    w.predicates[at] = (w.predicates[at] & ~w.mask) | (bits & w.mask);
}

/* d = f(a, b, ...). Rows are the same or do not meet, so lanes do not depend on each other. */
template <auto f> struct map;
template <class D, class... A, D (*f)(A...)> struct map<f> {
    static void run(warp &w, const instruction &i) {
        of(w, i, std::index_sequence_for<A...>());
    }

  private:
    template <size_t... k> static void of(warp &w, const instruction &i, std::index_sequence<k...>) {
        word_for<D> *d = row<D>(w, i.at[0]);
        std::tuple<const word_for<A> *...> a(row<A>(w, i.at[k + 1])...);
        if (w.mask == ~0u) {
            word_for<D> r[LANES];
            for (int l = 0; l < LANES; l++)
                r[l] = word_of<D>(f(value<A>(std::get<k>(a)[l])...));
            memcpy(d, r, sizeof r);
        } else
            each_lane(w.mask, [&](int l) { d[l] = word_of<D>(f(value<A>(std::get<k>(a)[l])...)); });
    }
};

/* p = f(a, b). */
template <auto f> struct compare;
template <class A, bool (*f)(A, A)> struct compare<f> {
    static uint32_t bits(warp &w, const instruction &i) {
        const word_for<A> *a = row<A>(w, i.at[1]), *b = row<A>(w, i.at[2]);
        uint32_t r = 0;
        for (int l = 0; l < LANES; l++)
            r |= (uint32_t)f(value<A>(a[l]), value<A>(b[l])) << l;
        return r;
    }
    static void run(warp &w, const instruction &i) {
        write_predicate(w, i.at[0], bits(w, i));
    }
    static void run_and(warp &w, const instruction &i) {
        write_predicate(w, i.at[0], bits(w, i) & read_predicate(w, i.at[3]));
    }
    static void run_or(warp &w, const instruction &i) {
        write_predicate(w, i.at[0], bits(w, i) | read_predicate(w, i.at[3]));
    }
};

template <auto f> void add_compare(forms &into, const char *opcode, const char *type, const char *operands) {
    std::string name = std::string("setp.") + opcode, end = std::string(".") + type;
    into.add(name + end, operands, compare<f>::run);
    const char *more = operands[2] == 'r' ? "p=rrp" : operands[2] == 'l' ? "p=llp" : "p=hhp";
    into.add(name + ".and" + end, more, compare<f>::run_and);
    into.add(name + ".or" + end, more, compare<f>::run_or);
}

} // namespace ptx

#endif
