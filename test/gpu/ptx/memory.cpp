#include "test/gpu/ptx/machine.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>

namespace ptx {

void fail(error code, const char *format, ...) {
    char text[300];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    throw fault{code, text};
}

card_memory::card_memory(const std::vector<range> &allocations) {
    for (const range &r : allocations)
        all.push_back({r.from, r.bytes, {}});
}

void card_memory::misaligned(uint64_t address, size_t bytes) {
    fail(error::misaligned_address, "an access of %zu bytes at address 0x%llx", bytes, (unsigned long long)address);
}

size_t card_memory::search(uint64_t address, size_t bytes) const {
    auto after = std::upper_bound(all.begin(), all.end(), address, [](uint64_t a, const one &o) { return a < o.from; });
    if (after != all.begin()) {
        const one &o = *(after - 1);
        uint64_t at = address - o.from;
        if (at < o.bytes && o.bytes - at >= bytes)
            return (size_t)(after - 1 - all.begin());
        if (at < o.bytes + (1 << 20))
            fail(error::illegal_address, "bytes %llu to %llu of an allocation of %zu", (unsigned long long)at,
                 (unsigned long long)(at + bytes), o.bytes);
    }
    fail(error::illegal_address, "address 0x%llx, in no allocation of the card", (unsigned long long)address);
}

void card_memory::mark(one &o, uint64_t address, size_t bytes, unsigned char as, unsigned char against) {
    if (o.marks.empty())
        o.marks.resize(o.bytes / GRAIN + 1);
    for (uint64_t at = (address - o.from) / GRAIN; at <= (address - o.from + bytes - 1) / GRAIN; at++) {
        if (o.marks[at] & against)
            fail(error::launch_failed, "%s",
                 as == WAS_READ ? "ld.global.nc of what the same kernel has written"
                                : "a store to what the same kernel read by ld.global.nc");
        o.marks[at] |= as;
    }
}

unsigned char *card_memory::read_only(uint64_t address, size_t bytes, size_t *found) {
    one &o = all[lookup(address, bytes, found)];
    mark(o, address, bytes, WAS_READ, WAS_WRITTEN);
    return (unsigned char *)(uintptr_t)address;
}

unsigned char *card_memory::write(uint64_t address, size_t bytes, size_t *found) {
    one &o = all[lookup(address, bytes, found)];
    mark(o, address, bytes, WAS_WRITTEN, WAS_READ);
    return (unsigned char *)(uintptr_t)address;
}

/* Not a number in any format, as what a card leaves may be. */
static const unsigned char garbage = 0xff;
/* Who has read a word: a thread, several of a warp, threads of several warps. */
enum : uint32_t { MANY_OF_WARP = 0x10000, MANY = 0x20000 };

shared_memory::shared_memory(size_t bytes, int n_warps)
    : data(bytes), states(bytes), writes(bytes / 4 + 1), reads(bytes / 4 + 1), warp_epochs((size_t)n_warps) {
}

void shared_memory::begin_block() {
    epoch++;
    std::fill(data.begin(), data.end(), garbage);
    std::fill(states.begin(), states.end(), (unsigned char)SETTLED);
}

size_t shared_memory::check(uint64_t address, size_t bytes) const {
    uint64_t at = address - SHARED_FROM;
    if (at >= data.size() || data.size() - at < bytes)
        fail(error::illegal_address, "bytes %lld to %lld of %zu bytes of shared memory", (long long)at,
             (long long)(at + bytes), data.size());
    if (address % bytes != 0)
        fail(error::misaligned_address, "an access of %zu bytes at shared address %llu", bytes,
             (unsigned long long)address);
    return at;
}

/* Whether nothing makes the access come before one of this thread. */
bool shared_memory::unordered(const access &a, int thread) const {
    if (a.epoch != epoch || a.who == (uint32_t)thread)
        return false;
    uint32_t warp = (uint32_t)thread / LANES;
    if (a.who == MANY || (a.who & 0xffff) / LANES != warp)
        return true;
    return a.warp_epoch == warp_epochs[warp];
}

const unsigned char *shared_memory::read(uint64_t address, size_t bytes, int thread) {
    size_t at = check(address, bytes);
    for (size_t i = at; i < at + bytes; i++)
        if (states[i] == UNDER_WAY)
            fail(error::launch_failed, "byte %zu of shared memory is read while cp.async is under way to it", i);
    uint32_t warp = (uint32_t)thread / LANES;
    for (size_t k = at / 4; k <= (at + bytes - 1) / 4; k++) {
        const access &last = writes[k];
        if (unordered(last, thread))
            fail(error::launch_failed,
                 "thread %d reads byte %zu of shared memory, which thread %u wrote: no barrier "
                 "is between",
                 thread, 4 * k, last.who);
        access &r = reads[k];
        if (r.epoch != epoch)
            r = {epoch, warp_epochs[warp], (uint32_t)thread};
        else if (r.who != (uint32_t)thread && r.who != MANY) {
            bool same_warp = (r.who & 0xffff) / LANES == warp;
            r = {epoch, warp_epochs[warp], same_warp ? warp * LANES | MANY_OF_WARP : (uint32_t)MANY};
        } else if (r.who == (uint32_t)thread)
            r.warp_epoch = warp_epochs[warp];
    }
    return &data[at];
}

void shared_memory::note_write(size_t at, size_t bytes, int thread) {
    for (size_t k = at / 4; k <= (at + bytes - 1) / 4; k++) {
        bool part = bytes < 4; /* another thread may have the word's other half */
        if (!part && unordered(writes[k], thread))
            fail(error::launch_failed, "threads %u and %d write byte %zu of shared memory: no barrier is between",
                 writes[k].who, thread, 4 * k);
        if (unordered(reads[k], thread))
            fail(error::launch_failed, "thread %d writes byte %zu of shared memory, which %s: no barrier is between",
                 thread, 4 * k, reads[k].who >= MANY_OF_WARP ? "several threads have read" : "another thread has read");
        writes[k] = {epoch, warp_epochs[(size_t)thread / LANES], (uint32_t)thread};
    }
}

unsigned char *shared_memory::write(uint64_t address, size_t bytes, int thread) {
    size_t at = check(address, bytes);
    for (size_t i = at; i < at + bytes; i++) {
        if (states[i] == UNDER_WAY)
            fail(error::launch_failed, "byte %zu of shared memory is written while cp.async is under way to it", i);
    }
    note_write(at, bytes, thread);
    return &data[at];
}

void shared_memory::copy_begins(uint64_t address, size_t bytes, int thread) {
    size_t at = check(address, bytes);
    note_write(at, bytes, thread);
    for (size_t i = at; i < at + bytes; i++) {
        if (states[i] == UNDER_WAY)
            fail(error::launch_failed, "two cp.async are under way to byte %zu of shared memory", i);
        states[i] = UNDER_WAY;
        data[i] = garbage;
    }
}

void shared_memory::copy_ends(uint64_t address, const void *from, size_t bytes, int thread) {
    size_t at = address - SHARED_FROM;
    memcpy(&data[at], from, bytes);
    std::fill(&states[at], &states[at] + bytes, (unsigned char)SETTLED);
    note_write(at, bytes, thread);
}

} // namespace ptx
