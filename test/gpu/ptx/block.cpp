/* test/gpu/ptx/block.cpp - blocks and warps: who executes which instruction next. */
#include "test/gpu/ptx/machine.h"

#include <algorithm>
#include <cstdio>

namespace ptx {

/* xorshift64*, Vigna 2016 */
static size_t random_below(uint64_t *state, size_t n) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (size_t)((*state * 0x2545f4914f6cdd1dull >> 33) % n);
}
template <class T> static void shake(std::vector<T> &list, uint64_t *state) {
    for (size_t i = list.size(); i > 1; i--)
        std::swap(list[i - 1], list[random_below(state, i)]);
}

static size_t shared_total(const kernel &k, const launch &l) {
    return l.shared > 0 ? (k.shared_bytes + 15) / 16 * 16 + l.shared : k.shared_bytes;
}

/* What registers hold that nobody has set. */
static const uint32_t garbage = 0x7fc17fc1;

block::block(const kernel &k, const launch &l, card_memory &memory)
    : k(k), l(l), memory(memory), shared(shared_total(k, l), (l.threads + LANES - 1) / LANES), found(k.code.size(), 0) {
    warps.resize((size_t)(l.threads + LANES - 1) / LANES);
    for (size_t n = 0; n < warps.size(); n++) {
        warp &w = warps[n];
        w.in = this;
        w.index = (int)n;
        int lanes = std::min<int>(LANES, l.threads - (int)n * LANES);
        w.all = lanes == LANES ? ~0u : (1u << lanes) - 1;
        w.narrow.assign((size_t)k.n_narrow * LANES, garbage);
        w.wide.assign((size_t)k.n_wide * LANES, (uint64_t)garbage << 32 | garbage);
        w.predicates.assign(k.n_predicates, 0x5a5a5a5a);
        w.local.assign(k.local_bytes * LANES, 0xff);
        for (const auto &c : k.narrow_constants)
            std::fill_n(&w.narrow[c.first], (size_t)LANES, c.second);
        for (const auto &c : k.wide_constants)
            std::fill_n(&w.wide[c.first], (size_t)LANES, c.second);
    }
}

void block::begin(warp &w, const int at[3]) {
    for (const auto &s : k.specials)
        for (int lane = 0; lane < LANES; lane++) {
            int v = 0;
            switch (s.second) {
            case special::tid_x:
                v = w.thread(lane);
                break;
            case special::tid_y:
            case special::tid_z:
                v = 0;
                break;
            case special::ntid_x:
                v = l.threads;
                break;
            case special::ntid_y:
            case special::ntid_z:
                v = 1;
                break;
            case special::ctaid_x:
            case special::ctaid_y:
            case special::ctaid_z:
                v = at[(int)s.second - (int)special::ctaid_x];
                break;
            case special::nctaid_x:
            case special::nctaid_y:
            case special::nctaid_z:
                v = l.grid[(int)s.second - (int)special::nctaid_x];
                break;
            case special::laneid:
                v = lane;
                break;
            }
            w.narrow[s.first + (uint32_t)lane] = (uint32_t)v;
        }
    w.live = w.group = w.all;
    w.waiting = 0;
    w.at_barrier = false;
    w.pc = 0;
    w.limit = NONE;
    for (int lane = 0; lane < LANES; lane++) {
        w.copies[lane].clear();
        w.n_groups[lane] = 0;
    }
}

/* Lanes of the group are at pc; of all that can go on, those at the lowest instruction go on. */
void block::regroup(warp &w) {
    each_lane(w.group, [&](int lane) { w.pcs[lane] = w.pc; });
    uint32_t able = w.live & ~w.waiting;
    if (able == 0) {
        gather(w);
        return;
    }
    w.pc = NONE;
    each_lane(able, [&](int lane) { w.pc = std::min(w.pc, w.pcs[lane]); });
    w.group = 0;
    w.limit = NONE;
    each_lane(able, [&](int lane) {
        if (w.pcs[lane] == w.pc)
            w.group |= 1u << lane;
        else
            w.limit = std::min(w.limit, w.pcs[lane]);
    });
}

/* Every lane that is left waits: for the same, or forever. */
void block::gather(warp &w) {
    if (w.live == 0) {
        w.group = 0;
        return;
    }
    uint32_t at = w.pcs[__builtin_ctz(w.live)];
    each_lane(w.live, [&](int lane) {
        if (w.pcs[lane] != at)
            fail(error::launch_failed, "other lanes of the warp wait in line %d (%s)", k.code[w.pcs[lane]].line,
                 k.code[w.pcs[lane]].opcode);
    });
    w.pc = at;
    if (w.live != w.all)
        fail(error::launch_failed, "lanes wait for others of their warp, which have ended");
    w.group = w.live;
    w.waiting = 0;
    w.limit = NONE;
}

/* Runs a warp to its next barrier or to its end. */
void block::step(warp &w) {
    running = &w;
    while (w.live != 0) {
        const instruction &i = k.code[w.pc];
        uint32_t mask = w.group;
        if (i.guard != NONE)
            mask &= i.guard_not ? ~w.predicates[i.guard] : w.predicates[i.guard];
        n_executed++;
        bool split = false;
        switch (i.what) {
        case kind::plain:
            w.mask = mask;
            if (mask != 0)
                i.run(w, i);
            w.pc++;
            break;
        case kind::branch:
            if (mask == w.group)
                w.pc = i.target;
            else {
                each_lane(mask, [&](int lane) { w.pcs[lane] = i.target; });
                w.group &= ~mask;
                w.pc++;
                split = mask != 0;
            }
            break;
        case kind::exit:
            w.live &= ~mask;
            w.group &= ~mask;
            w.pc++;
            split = mask != 0;
            break;
        case kind::collective:
        case kind::barrier:
            if (mask == 0) {
                w.pc++;
                break;
            }
            if (mask != w.group)
                fail(error::launch_failed, "some lanes of a warp are to take part, others not");
            if (w.group != w.all) {
                w.waiting |= w.group;
                split = true;
                break;
            }
            w.waiting = 0;
            w.mask = w.group;
            if (i.what == kind::barrier) {
                if (i.n != 0)
                    fail(error::launch_failed, "barrier %d", i.n);
                w.at_barrier = true;
                return;
            }
            if (w.all != ~0u)
                fail(error::launch_failed, "in a warp of fewer than 32 threads");
            i.run(w, i);
            w.pc++;
            break;
        }
        if (split || w.pc >= w.limit)
            regroup(w);
    }
}

void block::run(const int at[3], uint64_t *random) {
    std::vector<warp *> order;
    shared.begin_block();
    for (warp &w : warps) {
        begin(w, at);
        order.push_back(&w);
    }
    for (;;) {
        shake(order, random);
        size_t n_waiting = 0, n_ended = 0;
        for (warp *w : order) {
            step(*w);
            if (w->at_barrier)
                n_waiting++;
            else
                n_ended++;
        }
        if (n_waiting == 0)
            return;
        if (n_ended > 0) {
            running = *std::find_if(order.begin(), order.end(), [](warp *w) { return w->at_barrier; });
            fail(error::launch_failed, "a warp waits for a barrier, and others of its block have ended");
        }
        uint32_t pc = order[0]->pc;
        for (warp *w : order) {
            running = w;
            if (w->pc != pc)
                fail(error::launch_failed, "a warp waits here, others in line %d", k.code[pc].line);
            w->at_barrier = false;
            w->pc++;
        }
        shared.barrier();
    }
}

error run(const kernel &k, const launch &l, std::string *why, uint64_t *n_executed) {
    card_memory memory(l.memory);
    block b(k, l, memory);
    uint64_t random = l.seed * 2 + 0x9e3779b97f4a7c15ull;
    std::vector<int> order((size_t)l.grid[0] * (size_t)l.grid[1] * (size_t)l.grid[2]);
    for (size_t i = 0; i < order.size(); i++)
        order[i] = (int)i;
    shake(order, &random);
    error result = error::none;
    for (int i : order) {
        const int at[3] = {i % l.grid[0], i / l.grid[0] % l.grid[1], i / l.grid[0] / l.grid[1]};
        try {
            b.run(at, &random);
        } catch (const fault &f) {
            const warp &w = *b.running;
            const instruction &x = k.code[w.pc];
            char where[200];
            snprintf(where, sizeof where, "kernel %s, block (%d, %d, %d), warp %d, lanes 0x%08x: %s: ", k.name.c_str(),
                     at[0], at[1], at[2], w.index, w.group, x.opcode);
            *why = k.file + ":" + std::to_string(x.line) + ": " + where + f.text;
            result = f.code;
            break;
        }
    }
    *n_executed = b.n_executed;
    return result;
}

} // namespace ptx
