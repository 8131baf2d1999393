/* test/gpu/ptx/machine.h - what executes PTX: the card's memory as a launch sees it, a block, its warps.
 *
 * Lanes of a warp that are at the same instruction go together; of groups that are at different ones, the group at the
 * lowest goes first, which brings them together again behind what they did apart. What the whole warp does together
 * waits for all its lanes. A warp runs until it comes to a barrier or its end; then another one does. */
#ifndef PTX_MACHINE_H
#define PTX_MACHINE_H

#include "test/gpu/ptx/program.h"
#include "test/gpu/ptx/ptx.h"

#include <cstring>

namespace ptx {

/* A kernel does what a card would punish, or what has no defined result. */
struct fault {
    error code;
    std::string text; /* of what alone: who and where comes later */
};
[[noreturn]] void fail(error code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Generic addresses of what is no card memory. */
static const uint64_t SHARED_WINDOW = 0x7ffd000000000000, LOCAL_WINDOW = 0x7ffc000000000000, WINDOW_BYTES = 1 << 24;
/* The first kilobyte of a block's shared memory belongs to the system, from 8.0 on: so no address of a variable is 0.
 */
enum { SHARED_FROM = 1024 };

/* The memory of a card: its allocations as the driver knows them. */
class card_memory {
  public:
    explicit card_memory(const std::vector<range> &allocations);
    /* bytes at address, aligned to them; found: where to look first. */
    unsigned char *read(uint64_t address, size_t bytes, size_t *found) const {
        const one &o = all[lookup(address, bytes, found)];
        return (unsigned char *)(uintptr_t)address + 0 * o.bytes;
    }
    /* The same by ld.global.nc, and by a store: what a kernel reads by the first it must not write. */
    unsigned char *read_only(uint64_t address, size_t bytes, size_t *found);
    unsigned char *write(uint64_t address, size_t bytes, size_t *found);

  private:
    enum { GRAIN = 4, WAS_READ = 1, WAS_WRITTEN = 2 };
    struct one {
        uint64_t from;
        size_t bytes;
        std::vector<unsigned char> marks; /* by GRAIN bytes; none as long as there is nothing to say */
    };
    size_t lookup(uint64_t address, size_t bytes, size_t *found) const {
        if (address % bytes != 0)
            misaligned(address, bytes);
        if (*found < all.size()) {
            const one &o = all[*found];
            if (address - o.from < o.bytes && o.bytes - (address - o.from) >= bytes)
                return *found;
        }
        return *found = search(address, bytes);
    }
    size_t search(uint64_t address, size_t bytes) const;
    void mark(one &o, uint64_t address, size_t bytes, unsigned char as, unsigned char against);
    [[noreturn]] static void misaligned(uint64_t address, size_t bytes);
    std::vector<one> all;
};

/* Shared memory of a block, and what is known of each of its words: who wrote and read it last, so that an access that
 * no barrier orders is seen, and whether a copy is under way to it. What nobody has written is not a number: kernels
 * may read it, of rows that they do not have, but must not let it into results. */
class shared_memory {
  public:
    shared_memory(size_t bytes, int n_warps);
    void begin_block();
    void barrier() {
        epoch++;
    }
    void warp_barrier(int warp) {
        warp_epochs[(size_t)warp]++;
    }
    const unsigned char *read(uint64_t address, size_t bytes, int thread);
    unsigned char *write(uint64_t address, size_t bytes, int thread);
    /* cp.async: from now on the bytes are neither old nor new; then they have come. */
    void copy_begins(uint64_t address, size_t bytes, int thread);
    void copy_ends(uint64_t address, const void *from, size_t bytes, int thread);

  private:
    enum state : unsigned char { SETTLED, UNDER_WAY };
    struct access {
        uint32_t epoch, warp_epoch, who;
    };
    size_t check(uint64_t address, size_t bytes) const;
    bool unordered(const access &a, int thread) const;
    void note_write(size_t at, size_t bytes, int thread);
    std::vector<unsigned char> data;
    std::vector<unsigned char> states;
    std::vector<access> writes, reads; /* by words */
    std::vector<uint32_t> warp_epochs;
    uint32_t epoch = 0;
};

/* An asynchronous copy that has not taken place yet. */
struct copy {
    uint32_t group;
    uint64_t to;
    const unsigned char *from;
};

struct block;

struct warp {
    block *in;
    int index;                /* in its block */
    uint32_t all, live, mask; /* lanes: that there are, that have not ended, that execute this instruction */
    uint32_t waiting;         /* for the others, before something that all do together; at pcs[] */
    uint32_t pcs[LANES];
    uint32_t group, pc, limit; /* lanes that are at pc, and where the next others are */
    bool at_barrier;
    std::vector<uint32_t> narrow, predicates;
    std::vector<uint64_t> wide;
    std::vector<unsigned char> local;
    std::vector<copy> copies[LANES];
    uint32_t n_groups[LANES]; /* of copies, committed */

    int thread(int lane) const {
        return index * LANES + lane;
    }
};

struct block {
    const kernel &k;
    const launch &l;
    card_memory &memory;
    shared_memory shared;
    std::vector<size_t> found; /* by instruction: which allocation it touched last */
    std::vector<warp> warps;
    uint64_t n_executed = 0; /* instructions of warps */
    warp *running = nullptr;
    block(const kernel &k, const launch &l, card_memory &memory);
    void run(const int at[3], uint64_t *random);

  private:
    void begin(warp &w, const int at[3]);
    void step(warp &w);
    void regroup(warp &w);
    void gather(warp &w);
};

/* The address of the instruction's nth address operand in a lane. */
inline uint64_t address_of(const warp &w, const instruction &i, int operand, int nth, int lane) {
    uint64_t base = i.wide[nth] ? w.wide[i.at[operand] + (uint32_t)lane] : w.narrow[i.at[operand] + (uint32_t)lane];
    return base + (uint64_t)i.offset[nth];
}

template <class F> void each_lane(uint32_t mask, F f) {
    for (; mask != 0; mask &= mask - 1)
        f(__builtin_ctz(mask));
}

} // namespace ptx

#endif
