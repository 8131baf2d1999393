/* test/gpu/ptx/forms_memory.cpp - loads, stores and asynchronous copies. */
#include "test/gpu/ptx/lanes.h"

namespace ptx {

namespace {

enum class use { read, read_only, write };

/* Where a lane's address lies in this machine's memory. */
template <use how>
unsigned char *reach(warp &w, const instruction &i, space s, uint64_t address, size_t bytes, int lane) {
    block &b = *w.in;
    switch (s) {
    case space::generic:
        if (address - SHARED_WINDOW < WINDOW_BYTES)
            return reach<how>(w, i, space::shared, address - SHARED_WINDOW, bytes, lane);
        if (address - LOCAL_WINDOW < WINDOW_BYTES)
            return reach<how>(w, i, space::local, address - LOCAL_WINDOW, bytes, lane);
        return reach<how>(w, i, space::global, address, bytes, lane);
    case space::global: {
        size_t *found = &b.found[(size_t)(&i - b.k.code.data())];
        if constexpr (how == use::write)
            return b.memory.write(address, bytes, found);
        else if constexpr (how == use::read_only)
            return b.memory.read_only(address, bytes, found);
        else
            return b.memory.read(address, bytes, found);
    }
    case space::shared:
        if constexpr (how == use::write)
            return b.shared.write(address, bytes, w.thread(lane));
        else
            return const_cast<unsigned char *>(b.shared.read(address, bytes, w.thread(lane)));
    case space::param:
        if (address % bytes != 0)
            fail(error::misaligned_address, "a parameter's address %llu, no multiple of %zu",
                 (unsigned long long)address, bytes);
        if (address > b.k.param_bytes || b.k.param_bytes - address < bytes)
            fail(error::illegal_address, "bytes %llu to %llu of %zu bytes of parameters", (unsigned long long)address,
                 (unsigned long long)(address + bytes), b.k.param_bytes);
        return (unsigned char *)const_cast<void *>(b.l.arg) + address;
    case space::local:
        break;
    }
    if (address % bytes != 0)
        fail(error::misaligned_address, "a local address, no multiple of %zu", bytes);
    if (address > b.k.local_bytes || b.k.local_bytes - address < bytes)
        fail(error::illegal_address, "a local address beyond the thread's %zu bytes", b.k.local_bytes);
    return &w.local[(size_t)lane * b.k.local_bytes + address];
}

/* Elements of type E into registers of type R. */
template <class E, class R, use how> void load(warp &w, const instruction &i) {
    const unsigned char *from[LANES];
    size_t bytes = sizeof(E) * i.n;
    each_lane(w.mask, [&](int l) { from[l] = reach<how>(w, i, i.where, address_of(w, i, i.n, 0, l), bytes, l); });
    for (int k = 0; k < i.n; k++) {
        word_for<R> *d = row<R>(w, i.at[k]);
        each_lane(w.mask, [&](int l) {
            E e;
            memcpy(&e, from[l] + (size_t)k * sizeof e, sizeof e);
            if constexpr (std::is_signed_v<E>)
                d[l] = (R)(std::make_signed_t<R>)e;
            else
                d[l] = (R)e;
        });
    }
}

template <class E, class R> void store(warp &w, const instruction &i) {
    size_t bytes = sizeof(E) * i.n;
    each_lane(w.mask, [&](int l) {
        unsigned char *to = reach<use::write>(w, i, i.where, address_of(w, i, 0, 0, l), bytes, l);
        for (int k = 0; k < i.n; k++) {
            E e = (E)row<R>(w, i.at[k + 1])[l];
            memcpy(to + (size_t)k * sizeof e, &e, sizeof e);
        }
    });
}

/* From now on the bytes may come at any time. */
void copy_async(warp &w, const instruction &i) {
    block &b = *w.in;
    if (i.n != 16)
        fail(error::launch_failed, "cp.async.cg of %d bytes", i.n);
    each_lane(w.mask, [&](int l) {
        uint64_t to = address_of(w, i, 0, 0, l), from = address_of(w, i, 1, 1, l);
        const unsigned char *p = b.memory.read(from, 16, &b.found[(size_t)(&i - b.k.code.data())]);
        b.shared.copy_begins(to, 16, w.thread(l));
        w.copies[l].push_back({w.n_groups[l], to, p});
    });
}
void copy_commit(warp &w, const instruction &) {
    each_lane(w.mask, [&](int l) { w.n_groups[l]++; });
}
void copy_wait(warp &w, const instruction &i) {
    each_lane(w.mask, [&](int l) {
        std::vector<copy> &c = w.copies[l];
        size_t n = 0;
        while (n < c.size() && c[n].group + i.n < w.n_groups[l]) {
            w.in->shared.copy_ends(c[n].to, c[n].from, 16, w.thread(l));
            n++;
        }
        c.erase(c.begin(), c.begin() + (std::ptrdiff_t)n);
    });
}

const struct {
    int n;
    const char *name, *load[3], *store[3];
} vectors[] = {
    {1, "", {"h=[", "r=[", "l=["}, {"=[h", "=[r", "=[l"}},
    {2, ".v2", {"{hh}=[", "{rr}=[", "{ll}=["}, {"=[{hh}", "=[{rr}", "=[{ll}"}},
    {4, ".v4", {"{hhhh}=[", "{rrrr}=[", "{llll}=["}, {"=[{hhhh}", "=[{rrrr}", "=[{llll}"}},
};

/* With caches' hints, which change nothing here. */
const struct {
    const char *name;
    space where;
    bool read_only, stores;
} spaces[] = {
    {"", space::generic, false, true},
    {".global", space::global, false, true},
    {".global.cg", space::global, false, true},
    {".global.cs", space::global, false, true},
    {".global.L1::no_allocate", space::global, false, true},
    {".global.nc", space::global, true, false},
    {".global.nc.L1::no_allocate", space::global, true, false},
    {".shared", space::shared, false, true},
    {".local", space::local, false, true},
    {".param", space::param, false, false},
};

template <class E, class R> void add_access(forms &f, const char *type, int shape) {
    for (const auto &s : spaces)
        for (const auto &v : vectors) {
            if (sizeof(E) * (size_t)v.n > 16)
                continue;
            std::string end = std::string(s.name) + v.name + "." + type;
            form one = {v.load[shape], s.read_only ? load<E, R, use::read_only> : load<E, R, use::read>,
                        kind::plain,   s.where,
                        sizeof(E),     (uint8_t)v.n,
                        s.read_only};
            f.add("ld" + end, one);
            if (!s.stores)
                continue;
            one.operands = v.store[shape];
            one.run = store<E, R>;
            f.add("st" + end, one);
        }
}
template <class E> void add_type(forms &f, const char *type) {
    if constexpr (sizeof(E) <= 2)
        add_access<E, uint16_t>(f, type, 0);
    if constexpr (sizeof(E) <= 4)
        add_access<E, uint32_t>(f, type, 1);
    add_access<E, uint64_t>(f, type, 2);
}

} // namespace

void add_memory(forms &f) {
    add_type<uint8_t>(f, "u8");
    add_type<uint8_t>(f, "b8");
    add_type<int8_t>(f, "s8");
    add_type<uint16_t>(f, "u16");
    add_type<uint16_t>(f, "b16");
    add_type<int16_t>(f, "s16");
    add_type<uint32_t>(f, "u32");
    add_type<uint32_t>(f, "b32");
    add_type<uint32_t>(f, "f32");
    add_type<int32_t>(f, "s32");
    add_type<uint64_t>(f, "u64");
    add_type<uint64_t>(f, "b64");
    add_type<uint64_t>(f, "s64");
    f.add("cp.async.cg.shared.global", "=[[i", copy_async);
    f.add("cp.async.commit_group", "=", copy_commit);
    f.add("cp.async.wait_group", "=i", copy_wait);
}

} // namespace ptx
