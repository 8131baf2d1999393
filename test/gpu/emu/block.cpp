#include "test/gpu/emu/block.h"
#include "test/gpu/emu/fiber.h"
#include "test/gpu/emu/memory.h"

#include <algorithm>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <link.h>
#include <vector>

namespace emu {

kernel *kernel::all;
int thread, n_threads;
dim block, grid;
void *dynamic_shared;

/* Asynchronous copies of one thread that have not taken place yet; `group` counts its commits. */
struct pending_copy {
    void *to;
    const void *from;
    int group;
};

struct lane {
    fiber own;
    int thread;
    lane *next; /* in the circle of its warp */
    struct warp *w;
    operands given;
    std::vector<pending_copy> copies;
    int n_groups;
    bool awaited, released;
};

/* Lanes take turns in a circle: each runs until it comes to an operation, then the next, and the last of them does the
 * operation and goes on. So whoever is next in the circle has not come to it yet. Warps take turns likewise between
 * barriers of the block. */
struct warp {
    warp *after; /* in the circle of the block */
    int n;       /* lanes */
    lane *order[32];
    operands *given[32]; /* by lane */
    lane *next;          /* runs when the warp's turn comes */
    int n_arrived, n_ended;
    op kind; /* what those that arrived wait for */
    where at;
};

static const kernel *running;
static const void *argument;
static bool overlapping; /* the launch may have begun early */
static bool early;       /* and this block does: it stops in await_predecessor */

/* The threads of one block. */
struct crew {
    std::vector<lane *> lanes; /* with their stacks, for all blocks to come */
    warp warps[32];
    warp *order[32];
    int n_warps, n_waiting, n_done; /* warps that wait in sync_block, that have ended */
    where barrier;
};
static std::vector<crew *> &idle_crews = *new std::vector<crew *>; /* as long as the process: no leak at its end */
static crew *own;
static lane *self;
static fiber outside; /* whoever launched */

static size_t dynamic_bytes;
static char *static_shared; /* the SHARED variables of all kernels: this library's thread-local memory */
static size_t static_bytes;

/* A block that has come to await_predecessor before its launch's turn. */
struct begun_block {
    crew *threads;
    lane *next;
    int index; /* in the grid */
    void *dynamic_shared;
    size_t shared_at; /* what it left of the SHARED variables, which other blocks use meanwhile */
    std::vector<char> shared;
};

/* xorshift64*, Vigna 2016 */
static uint64_t random_state;
int random_below(int n) {
    if (random_state == 0) {
        const char *seed = getenv("EMU_SEED");
        random_state = (seed ? strtoull(seed, nullptr, 10) : 0) * 2 + 0x9e3779b97f4a7c15ull;
    }
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (int)((random_state * 0x2545f4914f6cdd1dull >> 33) % (uint64_t)n);
}
template <class T> static void shake(T *list, int n) {
    for (int i = n - 1; i > 0; i--)
        std::swap(list[i], list[random_below(i + 1)]);
}

void broken(where at, const char *format, ...) {
    char text[400];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    fputs("emulated card: ", stderr);
    if (at.file)
        fprintf(stderr, "%s:%d: ", at.file, at.line);
    fprintf(stderr, "kernel %s, block (%d, %d, %d), thread %d: %s\n", running->name, block.x, block.y, block.z, thread,
            text);
    abort();
}

void check_aligned(const void *p, const char *what, where at) {
    if ((uintptr_t)p % 16 != 0)
        broken(at, "%s at an address that is no multiple of 16", what);
}

bool in_shared(const void *p, size_t bytes) {
    uintptr_t at = (uintptr_t)p, s = (uintptr_t)static_shared, d = (uintptr_t)dynamic_shared;
    return (at - s < static_bytes && static_bytes - (at - s) >= bytes) ||
           (at - d < dynamic_bytes && dynamic_bytes - (at - d) >= bytes);
}

static void resume(lane *l) {
    lane *from = self;
    self = l;
    thread = l->thread;
    fiber_switch(&from->own, &l->own);
}

/* The next warp of the circle, which is before the barrier that this one waits at (or before its end). */
static void resume_next_warp(const warp &w) {
    resume(w.after->next);
}

static void wait_in_block(warp &w) {
    if (own->n_done > 0)
        broken(w.at, "waits in %s, but a warp has ended", op_name(w.kind));
    if (own->n_waiting > 0 && own->barrier.line != w.at.line)
        broken(w.at, "waits in %s, but other warps wait in line %d", op_name(w.kind), own->barrier.line);
    own->barrier = w.at;
    w.next = self->next;
    w.n_arrived = 0;
    if (++own->n_waiting < own->n_warps) {
        resume_next_warp(w);
        return;
    }
    own->n_waiting = 0;
    if (w.kind == op::await_predecessor)
        fiber_switch(&self->own, &outside); /* until it is the launch's turn */
}

static void arrive(op kind, where at) {
    warp &w = *self->w;
    if (w.n_ended > 0)
        broken(at, "waits in %s, but another thread of its warp has ended", op_name(kind));
    if (w.n_arrived > 0 && (w.kind != kind || w.at.line != at.line))
        broken(at, "calls %s, but others of its warp wait in %s in line %d", op_name(kind), op_name(w.kind), w.at.line);
    w.kind = kind;
    w.at = at;
    if (++w.n_arrived < w.n) {
        resume(self->next);
        return;
    }
    if (kind == op::sync_block || kind == op::await_predecessor) {
        wait_in_block(w);
        return;
    }
    if (w.n != 32)
        broken(at, "%s in a warp of %d threads", op_name(kind), w.n);
    w.n_arrived = 0;
    warp_execute(kind, w.given, at);
}

void sync_block(where at) {
    arrive(op::sync_block, at);
}

/* No barrier, except for a block that has begun early. */
void await_predecessor(where at) {
    if (self->awaited)
        broken(at, "waits for its predecessor a second time");
    self->awaited = true;
    if (early)
        arrive(op::await_predecessor, at);
}

void release_successor() {
    self->released = true;
}

void warp_op(op kind, where at, void *out, const void *a, const void *b) {
    self->given = {out, a, b};
    arrive(kind, at);
}

/* What a card leaves in memory that nobody has written: as f32, bf16 and f16 not a number. */
static const uint32_t garbage = 0x7fc17fc1;

static void fill(void *p, size_t bytes) {
    uint32_t *u = (uint32_t *)p;
    for (size_t i = 0; i < bytes / 4; i++)
        u[i] = garbage;
}

/* The copy may happen at any time until it is waited for: from now on the old content is lost, and the new one comes
 * as late as it may. */
void copy_async(void *to, const void *from, where at) {
    check_aligned(to, "copy_async to shared memory", at);
    check_aligned(from, "copy_async from device memory", at);
    if (!in_shared(to, 16))
        broken(at, "copy_async to what is not the block's shared memory");
    fill(to, 16);
    self->copies.push_back({to, from, self->n_groups});
}

void copy_commit() {
    self->n_groups++;
}

void copy_wait(int groups) {
    std::vector<pending_copy> &c = self->copies;
    size_t n = 0;
    while (n < c.size() && c[n].group < self->n_groups - groups) {
        memcpy(c[n].to, c[n].from, 16);
        n++;
    }
    c.erase(c.begin(), c.begin() + (std::ptrdiff_t)n);
}

/* A thread has come to the end of the kernel. Returns when its fiber is used for the next block. */
static void end_thread() {
    warp &w = *self->w;
    if (overlapping && !self->awaited)
        broken({}, "ends without await_predecessor, although launched to begin before its predecessor has ended");
    if (overlapping && !self->released)
        broken({}, "ends without release_successor, which costs the overlap with the next launch");
    if (w.n_arrived > 0)
        broken(w.at, "ends while others of its warp wait in %s", op_name(w.kind));
    if (own->n_waiting > 0)
        broken(own->barrier, "ends while other warps wait there");
    if (++w.n_ended < w.n)
        resume(self->next);
    else if (++own->n_done < own->n_warps)
        resume_next_warp(w);
    else
        fiber_switch(&self->own, &outside);
}

static void thread_main() {
    fiber_entered();
    for (;;) {
        running->call(running->body, argument);
        end_thread();
    }
}

static crew *take_crew(int threads) {
    if (idle_crews.empty())
        idle_crews.push_back(new crew());
    crew *c = idle_crews.back();
    idle_crews.pop_back();
    while ((int)c->lanes.size() < threads) {
        lane *l = new lane();
        l->thread = (int)c->lanes.size();
        fiber_create(&l->own, l->thread, thread_main);
        c->lanes.push_back(l);
    }
    c->n_warps = (threads + 31) / 32;
    for (int i = 0; i < c->n_warps; i++) {
        warp &w = c->warps[i];
        w.n = threads - 32 * i < 32 ? threads - 32 * i : 32;
        for (int j = 0; j < w.n; j++) {
            lane *l = c->lanes[(size_t)(32 * i + j)];
            l->w = &w;
            w.order[j] = l;
            w.given[j] = &l->given;
        }
        c->order[i] = &w;
    }
    return c;
}

/* What a block of k has written to SHARED variables. There are many such variables in the library and a kernel has few,
 * so its first blocks show which, and the others are believed to use no more. */
static void find_written(kernel &k) {
    const uint32_t *u = (const uint32_t *)static_shared;
    if (k.n_seen >= 8)
        return;
    size_t from = 0, to = static_bytes / 4;
    while (from < to && u[from] == garbage)
        from++;
    while (to > from && u[to - 1] == garbage)
        to--;
    if (from < to) {
        k.shared_from = std::min(k.shared_from, from * 4);
        k.shared_to = std::max(k.shared_to, to * 4);
    }
}

/* A block of k has run: what it wrote to SHARED variables becomes garbage again. */
static void clean_shared(kernel &k) {
    find_written(k);
    if (k.n_seen < 8)
        k.n_seen++;
    if (k.shared_from < k.shared_to)
        fill(static_shared + k.shared_from, k.shared_to - k.shared_from);
}

static void enter_block(int index) {
    block = {index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y};
}

/* Runs a block, or what comes before await_predecessor. */
static void run_block() {
    int n_warps = own->n_warps;
    fill(dynamic_shared, dynamic_bytes);
    shake(own->order, n_warps);
    for (int i = 0; i < n_warps; i++) {
        warp &w = *own->order[i];
        w.after = own->order[(i + 1) % n_warps];
        w.n_arrived = w.n_ended = 0;
        shake(w.order, w.n);
        w.next = w.order[0];
        for (int j = 0; j < w.n; j++) {
            w.order[j]->next = w.order[(j + 1) % w.n];
            w.order[j]->copies.clear();
            w.order[j]->n_groups = 0;
            w.order[j]->awaited = w.order[j]->released = false;
        }
    }
    own->n_waiting = own->n_done = 0;
    self = own->order[0]->order[0];
    thread = self->thread;
    fiber_switch(&outside, &self->own);
}

/* Takes away what a block left in SHARED variables when it stopped, and gives it back. */
static void save_shared(kernel &k, begun_block &b) {
    find_written(k);
    if (k.shared_from < k.shared_to) {
        b.shared_at = k.shared_from;
        b.shared.assign(static_shared + k.shared_from, static_shared + k.shared_to);
        fill(static_shared + k.shared_from, k.shared_to - k.shared_from);
    }
}

static void end_begun(kernel &k, begun_block *b) {
    own = b->threads;
    dynamic_shared = b->dynamic_shared;
    memcpy(static_shared + b->shared_at, b->shared.data(), b->shared.size());
    self = b->next;
    thread = self->thread;
    fiber_switch(&outside, &self->own);
    clean_shared(k);
    idle_crews.push_back(own);
    free(dynamic_shared);
    delete b;
}

/* Where the SHARED variables lie for the thread that calls. This one tells whether they have been filled. */
static thread_local volatile uint32_t filled;
static int find_shared(dl_phdr_info *info, size_t, void *) {
    uintptr_t here = (uintptr_t)&kernel::all;
    bool ours = false;
    size_t bytes = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &p = info->dlpi_phdr[i];
        if (p.p_type == PT_LOAD && here - (info->dlpi_addr + p.p_vaddr) < p.p_memsz)
            ours = true;
        if (p.p_type == PT_TLS)
            bytes = p.p_memsz;
    }
    if (!ours)
        return 0;
    static_shared = (char *)info->dlpi_tls_data;
    static_bytes = bytes;
    return 1;
}

/* Of exactly that size, so that AddressSanitizer sees what lies beyond. */
static void *alloc_shared(size_t bytes) {
    void *p = nullptr;
    if (bytes > 0 && posix_memalign(&p, 128, bytes) != 0)
        abort();
    return p;
}

static void enter_launch(const work &w) {
    bool clean = filled == garbage; /* which also gives the thread its copy of them */
    dl_iterate_phdr(find_shared, nullptr);
    if (!clean)
        fill(static_shared, static_bytes);
    running = &w.k;
    grid = w.grid;
    argument = w.arg;
    overlapping = w.overlaps;
    dynamic_bytes = w.shared;
    n_threads = w.threads;
}

begun_block *begin_early(const work &w, int room) {
    enter_launch(w);
    begun_block *b = new begun_block();
    b->index = random_below(w.grid.x * w.grid.y * w.grid.z);
    /* Reading all memory takes its time, so only the first such block of a kernel is watched. */
    bool watched = !w.k.watched;
    w.k.watched = true;
    uint64_t before = watched ? memory_digest(room) : 0;
    own = b->threads = take_crew(w.threads);
    dynamic_shared = b->dynamic_shared = alloc_shared(w.shared);
    enter_block(b->index);
    early = true;
    run_block();
    early = false;
    if (watched && memory_digest(room) != before)
        broken({}, "writes to the card's memory before await_predecessor");
    b->next = self;
    save_shared(w.k, *b);
    return b;
}

void run_kernel(const work &w, begun_block *begun) {
    enter_launch(w);
    crew *all = take_crew(w.threads);
    void *shared = alloc_shared(w.shared);
    std::vector<int> order((size_t)w.grid.x * (size_t)w.grid.y * (size_t)w.grid.z);
    for (size_t i = 0; i < order.size(); i++)
        order[i] = (int)i;
    shake(order.data(), (int)order.size());
    for (int i : order) {
        enter_block(i);
        if (begun && begun->index == i) {
            end_begun(w.k, begun);
            begun = nullptr;
            continue;
        }
        own = all;
        dynamic_shared = shared;
        run_block();
        clean_shared(w.k);
    }
    idle_crews.push_back(all);
    free(shared);
}

} // namespace emu
