/* test/gpu/emu/libcuda.h - objects of the emulated driver: what the handles of gpu/driver.h point to, and streams.
 *
 * A stream does nothing until somebody waits for it: what a card may do late is done as late as it may be, so that a
 * wait that is missing shows. All of it under one lock, which a thread gives away while cards wait for each other. */
#ifndef EMU_LIBCUDA_H
#define EMU_LIBCUDA_H

#include "test/gpu/emu/block.h"
#include "test/gpu/emu/memory.h"

extern "C" {
#include "gpu/driver.h"
}

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

/* Results that gpu/driver.h has no names for. */
enum {
    INVALID_VALUE = 1,
    NOT_INITIALIZED = 3,
    DEVICE_UNAVAILABLE = 46,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    ECC_UNCORRECTABLE = 214,
    UNSUPPORTED_PTX = 222,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILED = 719,
    DRIVER_MISMATCH = 803,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    UNKNOWN = 999,
};
enum { SHARED_DEFAULT = 48 * 1024, SHARED_OPTIN = 99 * 1024 }; /* as on cards of 8.6, 8.9 and 12.0, which have least */

struct CUctx_st {
    int ordinal;
    int n_retained;
    cu_result broken; /* what every call answers once a kernel has failed, until the context is gone */
};

struct object {
    CUctx_st *context;
    virtual ~object() = default;
};

struct CUmod_st : object {
    std::vector<struct CUfunc_st *> functions;
};
struct CUfunc_st : object {
    emu::kernel *kernel;
    int shared_max = SHARED_DEFAULT;
};

namespace emu {
struct gather; /* between cards (nccl.cpp) */
}

struct launch {
    emu::kernel *kernel;
    emu::dim grid;
    int threads;
    size_t shared;
    std::shared_ptr<void> arg;
    bool breaks; /* the card fails while it runs */
    bool overlaps = false;
    emu::begun_block *begun = nullptr;         /* before its turn; of the one on its way alone */
    std::shared_ptr<emu::gather> between = {}; /* no kernel then */
};
struct CUgraph_st : object {
    std::vector<launch> launches;
};
struct CUgraphExec_st : object {
    std::vector<launch> launches;
};

struct CUstream_st : object {
    std::deque<std::function<void()>> queue;
    uint64_t n_queued = 0, n_done = 0;
    bool running = false; /* a thread is at the first of the queue; in a gather it gives the lock to others meanwhile */
    std::shared_ptr<std::vector<launch>> last; /* the last of the queue, as long as that is launches */
    bool capturing = false, spoiled = false;
    std::vector<launch> captured;
};

/* One recording of an event: a place in a stream's queue. */
struct record {
    CUstream_st *stream; /* as long as it is not done */
    uint64_t place;
    bool done;
    std::chrono::steady_clock::time_point at;
};
struct CUevent_st : object {
    bool timed;
    std::shared_ptr<record> last;
};

namespace emu {

extern std::mutex driver_lock;
extern cu_result break_as; /* what a broken card answers */

CUctx_st *current();
/* Says what was wrong with a call to whoever reads the test's output; returns r. */
cu_result wrong(cu_result r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* 0 when there is a current context that is in order. */
cu_result check_context(const char *call);
/* The same, and o is alive and belongs to it. */
cu_result check(const object *o, const char *call);
/* The same for what cannot be recorded: it spoils a recording. */
cu_result check_running(cu_stream s, const char *call);
cu_result check_not_recording(const char *call);

/* A new object of the current context. */
void enlist(object *o);
template <class T> T *make() {
    T *o = new T();
    enlist(o);
    return o;
}
bool is_alive(const object *o);
/* Forgets and deletes it; works in a broken context too, and says so. */
cu_result destroy(object *o, const char *call);

/* Whether launches on a card may overlap. */
bool overlaps_on(int ordinal);

/* Whether the next launch or allocation is the one that fails. */
bool fails_now();
bool breaks_now();

void enqueue(CUstream_st *s, std::function<void()> work);
/* Runs what was queued up to that place, or all. Where cards wait for each other the lock is given away meanwhile. */
void drain(CUstream_st *s, uint64_t upto);
void drain(CUstream_st *s);
void drain_context(const CUctx_st *c);

/* Gives the lock away until something has changed. Ends the process, saying in what, when nothing helps for a minute.
 */
void wait_for_change(std::chrono::steady_clock::time_point since, const char *what);
void changed();

/* NULL: there is no such card. */
CUctx_st *context_of(int device);
void make_current(CUctx_st *c);
/* Gathers (nccl.cpp): one was put at the end of s, or a recording with one; its turn has come. */
void gather_queued(const std::shared_ptr<gather> &g, CUstream_st *s);
void gather_run(const std::shared_ptr<gather> &g);
/* Parts of cliques that a card still has. */
int gathers_left(const CUctx_st *c);

} // namespace emu

#endif
