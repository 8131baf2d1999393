/* test/gpu/emu/nccl.cpp - the functions of gpu/nccl.h over emulated cards: gathers, launched and recorded.
 *
 * A gather takes place when the streams of all its cards have come to it. The thread that waits for one of them runs
 * the others up to theirs, as far as they are enqueued, and then waits for threads that enqueue them. As with NVIDIA's,
 * the last communicator of a clique to be destroyed or aborted waits until no recording holds one of them, and what a
 * card has gathered after an abort is garbage that no call tells of. Using a communicator after that ends the process.
 *
 *   EMU_NCCL_VERSION=N   what ncclGetVersion says (22809)
 *   EMU_PATIENCE=N       seconds after which a wait that nothing ends ends the process (60) */
#include "test/gpu/emu/libcuda.h"

extern "C" {
#include "gpu/nccl.h"
}

#include <algorithm>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>

using namespace emu;
typedef std::lock_guard<std::mutex> guard;

enum { UNHANDLED_CUDA_ERROR = 1, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, REMOTE_ERROR = 6, INT8 = 0 };

struct place {
    CUstream_st *stream;
    uint64_t upto;
};

/* One gather of a clique: what its cards came with. */
struct meeting {
    std::vector<std::shared_ptr<gather>> of; /* by rank; null: not here yet */
    bool silent = false, done = false;
};

struct clique {
    std::vector<ncclComm *> ranks;
    std::map<uint64_t, std::shared_ptr<meeting>> meetings; /* by number, those that are not done */
    int n_recorded = 0;                                    /* gathers in recordings */
    int n_left = 0;                                        /* ranks that were destroyed or aborted */
};

/* Never deleted, so that one that is used too late is known. */
struct ncclComm {
    clique *in;
    int rank;
    CUctx_st *card;
    bool aborted = false, gone = false;
    std::deque<place> ahead = {}; /* where its next gathers lie */
    uint64_t n_begun = 0;
};

struct emu::gather {
    ncclComm *comm;
    const char *from;
    char *to;
    size_t bytes;
    bool recorded;
    ~gather() {
        comm->in->n_recorded -= recorded;
        changed();
    }
};

static std::condition_variable condition;
static std::vector<ncclComm *> &comms = *new std::vector<ncclComm *>; /* all there ever were */
static int fail_in, silent_in, garble_in;                             /* 0: never */
static nccl_result late_error;
static char last_error[200];

/* For tests: the nth call of ncclCommInitAll or ncclAllGather fails; the nth gather never takes place, or brings wrong
 * bytes; ncclCommGetAsyncError answers r. */
API void emu_nccl_fail(int in) {
    guard lock(driver_lock);
    fail_in = in;
}
API void emu_nccl_silence(int in) {
    guard lock(driver_lock);
    silent_in = in;
}
API void emu_nccl_garble(int in) {
    guard lock(driver_lock);
    garble_in = in;
}
API void emu_nccl_late_error(int r) {
    guard lock(driver_lock);
    late_error = r;
}

static bool now(int *in) {
    return *in > 0 && --*in == 0;
}

static long env_number(const char *name, long otherwise) {
    const char *v = getenv(name);
    return v ? atol(v) : otherwise;
}

void emu::changed() {
    condition.notify_all();
}

void emu::wait_for_change(std::chrono::steady_clock::time_point since, const char *what) {
    auto limit = std::chrono::seconds(env_number("EMU_PATIENCE", 60));
    if (std::chrono::steady_clock::now() - since > limit) {
        fprintf(stderr, "emulated card: nothing has ended a wait for %s\n", what);
        abort();
    }
    std::unique_lock<std::mutex> held(driver_lock, std::adopt_lock);
    condition.wait_until(held, std::chrono::system_clock::now() + std::chrono::milliseconds(200));
    held.release();
}

int emu::gathers_left(const CUctx_st *c) {
    int n = 0;
    for (const ncclComm *comm : comms)
        n += comm->card == c && !comm->gone;
    return n;
}

__attribute__((format(printf, 2, 3))) static nccl_result refused(nccl_result r, const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    vsnprintf(last_error, sizeof last_error, format, ap);
    va_end(ap);
    wrong(r, "%s", last_error);
    return r;
}

/* One that does not exist any more would be memory that was freed. */
static void check_there(const ncclComm *c, const char *call) {
    if (std::find(comms.begin(), comms.end(), c) != comms.end() && !c->gone)
        return;
    fprintf(stderr, "emulated card: %s with a communicator that does not exist (any more)\n", call);
    abort();
}

/* Gathers. */

static bool holds(const ncclComm *c, const gather &g) {
    return memory_holds(c->card->ordinal, g.from, g.bytes) &&
           memory_holds(c->card->ordinal, g.to, g.bytes * c->in->ranks.size());
}

static void meet(clique *in, meeting *m) {
    size_t n = m->of.size(), bytes = m->of[0]->bytes;
    cu_result r = 0;
    for (const auto &g : m->of)
        if (g->bytes != bytes || g->recorded != m->of[0]->recorded)
            r = wrong(LAUNCH_FAILED, "a gather of %zu bytes%s on card %d and %zu%s on card %d", bytes,
                      m->of[0]->recorded ? " (recorded)" : "", m->of[0]->comm->card->ordinal, g->bytes,
                      g->recorded ? " (recorded)" : "", g->comm->card->ordinal);
        else if (!holds(g->comm, *g))
            r = wrong(ILLEGAL_ADDRESS, "a gather: its memory on card %d was freed before it took place",
                      g->comm->card->ordinal);
    m->done = true;
    if (r != 0) {
        for (ncclComm *c : in->ranks)
            c->card->broken = r;
        return;
    }
    std::vector<char> all(n * bytes);
    for (size_t i = 0; i < n; i++) {
        memory_enter(m->of[i]->comm->card->ordinal);
        std::copy(m->of[i]->from, m->of[i]->from + bytes, &all[i * bytes]);
    }
    if (now(&garble_in))
        all[all.size() / 2] ^= 1;
    for (const auto &g : m->of) {
        memory_enter(g->comm->card->ordinal);
        std::copy(all.begin(), all.end(), g->to);
    }
}

/* Runs the stream of a rank that has not come to that meeting but has it ahead. false: nobody to run. */
static bool fetch(const clique *in, uint64_t number) {
    for (ncclComm *c : in->ranks) {
        if (c->n_begun > number || c->ahead.empty())
            continue;
        place next = c->ahead.front();
        if (is_alive(next.stream) && !next.stream->running) {
            drain(next.stream, next.upto);
            return true;
        }
    }
    return false;
}

void emu::gather_queued(const std::shared_ptr<gather> &g, CUstream_st *s) {
    check_there(g->comm, "cuGraphLaunch");
    g->comm->ahead.push_back({s, s->n_queued + 1});
    changed();
}

void emu::gather_run(const std::shared_ptr<gather> &g) {
    auto since = std::chrono::steady_clock::now();
    ncclComm *c = g->comm;
    c->ahead.pop_front();
    if (c->card->broken == 0 && !c->aborted) {
        uint64_t number = c->n_begun++;
        std::shared_ptr<meeting> &entry = c->in->meetings[number];
        if (!entry)
            entry.reset(new meeting{std::vector<std::shared_ptr<gather>>(c->in->ranks.size())});
        std::shared_ptr<meeting> m = entry;
        m->of[(size_t)c->rank] = g;
        m->silent = m->silent || now(&silent_in);
        if (!m->silent && std::all_of(m->of.begin(), m->of.end(), [](const auto &i) { return (bool)i; })) {
            meet(c->in, m.get());
            c->in->meetings.erase(number);
        }
        changed();
        while (!m->done && !c->aborted)
            if (!fetch(c->in, number))
                wait_for_change(since, "a gather of all its cards");
    }
    if (c->aborted && c->card->broken == 0 && holds(c, *g)) {
        memory_enter(c->card->ordinal);
        for (size_t i = 0; i < c->in->ranks.size(); i++)
            if (g->to + i * g->bytes != g->from)
                std::fill_n(g->to + i * g->bytes, g->bytes, (char)0xd9);
    }
}

API nccl_result ncclAllGather(const void *from, void *to, size_t count, nccl_type type, nccl_comm c, cu_stream s) {
    guard lock(driver_lock);
    check_there(c, "ncclAllGather");
    if (c->aborted)
        return INVALID_USAGE;
    if (c->card->broken != 0)
        return UNHANDLED_CUDA_ERROR;
    if (check(s, "ncclAllGather") != 0 || c->card != current())
        return refused(INVALID_USAGE, "ncclAllGather of card %d on another card's stream or thread", c->card->ordinal);
    if (type != NCCL_UINT8 && type != INT8)
        return refused(INVALID_ARGUMENT, "ncclAllGather: type %d is not known here", type);
    std::shared_ptr<gather> g(new gather{c, (const char *)from, (char *)to, count, s->capturing});
    c->in->n_recorded += s->capturing;
    if (!holds(c, *g))
        return refused(INVALID_ARGUMENT,
                       "ncclAllGather: %zu bytes of each card do not lie in one allocation of card %d", count,
                       c->card->ordinal);
    if (now(&fail_in))
        return refused(UNHANDLED_CUDA_ERROR, "this call was to fail");
    if (s->capturing) {
        launch l = {nullptr, {0, 0, 0}, 0, 0, nullptr, false};
        l.between = g;
        s->captured.push_back(l);
    } else {
        gather_queued(g, s);
        enqueue(s, [=] { gather_run(g); });
    }
    return 0;
}

/* Cliques. */

API nccl_result ncclGetVersion(int *version) {
    *version = (int)env_number("EMU_NCCL_VERSION", 22809);
    return 0;
}

API const char *ncclGetErrorString(nccl_result r) {
    switch (r) {
    case 0:
        return "no error";
    case UNHANDLED_CUDA_ERROR:
        return "unhandled cuda error";
    case INVALID_ARGUMENT:
        return "invalid argument";
    case INVALID_USAGE:
        return "invalid usage";
    case REMOTE_ERROR:
        return "remote process exited or there was a network error";
    default:
        return "unknown result code";
    }
}

API const char *ncclGetLastError(nccl_comm) {
    return last_error;
}

API nccl_result ncclCommInitAll(nccl_comm *out, int n, const int *devices) {
    guard lock(driver_lock);
    for (int i = 0; i < n; i++) {
        CUctx_st *c = context_of(devices[i]);
        if (!c || c->n_retained == 0)
            return refused(UNHANDLED_CUDA_ERROR, "ncclCommInitAll of card %d, which is not in use", devices[i]);
        if (std::find(devices, devices + i, devices[i]) != devices + i)
            return refused(INVALID_USAGE, "Duplicate GPU detected: card %d", devices[i]);
    }
    if (n < 1)
        return refused(INVALID_ARGUMENT, "ncclCommInitAll of %d cards", n);
    if (now(&fail_in))
        return refused(UNHANDLED_CUDA_ERROR, "this call was to fail");
    clique *in = new clique;
    for (int i = 0; i < n; i++) {
        out[i] = new ncclComm{in, i, context_of(devices[i])};
        comms.push_back(out[i]);
        in->ranks.push_back(out[i]);
    }
    make_current(context_of(devices[n - 1])); /* it may leave any */
    return 0;
}

/* The last one frees them all. */
static void leave(ncclComm *c) {
    auto since = std::chrono::steady_clock::now();
    clique *in = c->in;
    changed();
    if (++in->n_left < (int)in->ranks.size())
        return;
    for (ncclComm *r : in->ranks)
        while (!r->ahead.empty()) {
            place next = r->ahead.front();
            if (is_alive(next.stream))
                drain(next.stream, next.upto);
            else
                r->ahead.pop_front();
        }
    in->meetings.clear();
    while (in->n_recorded > 0)
        wait_for_change(since, "the end of all recordings with gathers, before their communicators are destroyed");
    for (ncclComm *r : in->ranks)
        r->gone = true;
}

API nccl_result ncclCommDestroy(nccl_comm c) {
    guard lock(driver_lock);
    check_there(c, "ncclCommDestroy");
    leave(c);
    return 0;
}

API nccl_result ncclCommAbort(nccl_comm c) {
    guard lock(driver_lock);
    check_there(c, "ncclCommAbort");
    c->aborted = true;
    leave(c);
    return 0;
}

API nccl_result ncclCommGetAsyncError(nccl_comm c, nccl_result *r) {
    guard lock(driver_lock);
    check_there(c, "ncclCommGetAsyncError");
    *r = late_error;
    return 0;
}
