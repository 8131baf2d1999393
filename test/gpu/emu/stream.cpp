/* test/gpu/emu/stream.cpp - the functions of gpu/driver.h about streams: copies, launches, events, recordings. */
#include "test/gpu/emu/libcuda.h"
#include "test/gpu/emu/nvcc.h"

#include <cstdlib>

using namespace emu;
typedef std::lock_guard<std::mutex> guard;

void emu::enqueue(CUstream_st *s, std::function<void()> work) {
    s->queue.push_back(std::move(work));
    s->n_queued++;
    s->last = nullptr;
}

void emu::drain(CUstream_st *s, uint64_t upto) {
    while (is_alive(s) && s->n_done < upto) {
        if (s->running) {
            wait_for_change("what another thread waits for");
            continue;
        }
        std::function<void()> work = std::move(s->queue.front());
        s->queue.pop_front();
        s->running = true;
        work();
        if (!is_alive(s))
            return;
        s->running = false;
        s->n_done++;
        changed();
    }
}

void emu::drain(CUstream_st *s) {
    drain(s, s->n_queued);
}

static bool pinned(const void *p, size_t bytes) {
    for (int i = 0; i < MAX_DEVICES; i++)
        if (memory_holds(HOST + i, p, bytes))
            return true;
    return false;
}

/* An operand of a copy or of a filling: on the card, or in pinned memory. */
struct range {
    const void *p;
    bool host;
};
static range on_card(cu_ptr p) {
    return {(const void *)(uintptr_t)p, false};
}

static bool is_there(const CUctx_st *c, range r, size_t bytes) {
    return r.host ? pinned(r.p, bytes) : memory_holds(c->ordinal, r.p, bytes);
}

static cu_result check_range(const CUctx_st *c, range r, size_t bytes, const char *call) {
    if (is_there(c, r, bytes))
        return 0;
    if (r.host)
        return wrong(INVALID_VALUE, "%s: %zu bytes of host memory that is not pinned", call, bytes);
    return wrong(INVALID_VALUE, "%s: %zu bytes that do not lie in one allocation of card %d", call, bytes, c->ordinal);
}

/* Ranges are looked at when the copy is asked for, and again when it happens: nobody may have freed them. */
static cu_result copy(range to, range from, size_t bytes, cu_stream s, const char *call) {
    guard lock(driver_lock);
    cu_result r = check_running(s, call);
    if (r == 0)
        r = check_range(s->context, to, bytes, call);
    if (r == 0)
        r = check_range(s->context, from, bytes, call);
    if (r != 0)
        return r;
    enqueue(s, [=] {
        if (s->context->broken != 0)
            return;
        if (!is_there(s->context, to, bytes) || !is_there(s->context, from, bytes)) {
            s->context->broken = wrong(ILLEGAL_ADDRESS, "%s: its memory was freed before it took place", call);
            return;
        }
        memory_enter(s->context->ordinal);
        memmove(const_cast<void *>(to.p), from.p, bytes);
    });
    return 0;
}

API cu_result cuMemcpyHtoDAsync_v2(cu_ptr dst, const void *src, size_t bytes, cu_stream s) {
    return copy(on_card(dst), {src, true}, bytes, s, "cuMemcpyHtoDAsync");
}

API cu_result cuMemcpyDtoHAsync_v2(void *dst, cu_ptr src, size_t bytes, cu_stream s) {
    return copy({dst, true}, on_card(src), bytes, s, "cuMemcpyDtoHAsync");
}

API cu_result cuMemcpyDtoDAsync_v2(cu_ptr dst, cu_ptr src, size_t bytes, cu_stream s) {
    return copy(on_card(dst), on_card(src), bytes, s, "cuMemcpyDtoDAsync");
}

API cu_result cuMemsetD8Async(cu_ptr dst, unsigned char value, size_t bytes, cu_stream s) {
    guard lock(driver_lock);
    cu_result r = check_running(s, "cuMemsetD8Async");
    if (r == 0)
        r = check_range(s->context, on_card(dst), bytes, "cuMemsetD8Async");
    if (r == 0)
        enqueue(s, [=] {
            if (s->context->broken != 0)
                return;
            memory_enter(s->context->ordinal);
            memset((void *)(uintptr_t)dst, value, bytes);
        });
    return r;
}

API cu_result cuStreamCreate(cu_stream *s, unsigned) {
    guard lock(driver_lock);
    cu_result r = check_context("cuStreamCreate");
    if (r == 0)
        *s = make<CUstream_st>();
    return r;
}

API cu_result cuStreamDestroy_v2(cu_stream s) {
    guard lock(driver_lock);
    if (is_alive(s))
        drain(s);
    return destroy(s, "cuStreamDestroy");
}

API cu_result cuStreamSynchronize(cu_stream s) {
    guard lock(driver_lock);
    cu_result r = check_running(s, "cuStreamSynchronize");
    if (r != 0)
        return r;
    const CUctx_st *c = s->context;
    drain(s);
    return c->broken;
}

static void wait_for(const std::shared_ptr<record> &what) {
    if (!what->done)
        drain(what->stream, what->place);
}

API cu_result cuStreamWaitEvent(cu_stream s, cu_event ev, unsigned) {
    guard lock(driver_lock);
    cu_result r = check_running(s, "cuStreamWaitEvent");
    if (r == 0 && !is_alive(ev)) /* of another card is fine */
        r = wrong(INVALID_HANDLE, "cuStreamWaitEvent for an event that does not exist (any more)");
    if (r == 0 && ev->last) {
        std::shared_ptr<record> last = ev->last;
        enqueue(s, [last] { wait_for(last); });
    }
    return r;
}

API cu_result cuEventCreate(cu_event *ev, unsigned flags) {
    guard lock(driver_lock);
    cu_result r = check_context("cuEventCreate");
    if (r == 0) {
        *ev = make<CUevent_st>();
        (*ev)->timed = !(flags & CU_EVENT_NO_TIMING);
    }
    return r;
}

API cu_result cuEventDestroy_v2(cu_event ev) {
    guard lock(driver_lock);
    return destroy(ev, "cuEventDestroy");
}

API cu_result cuEventRecord(cu_event ev, cu_stream s) {
    guard lock(driver_lock);
    cu_result r = check_running(s, "cuEventRecord");
    if (r == 0)
        r = check(ev, "cuEventRecord");
    if (r != 0)
        return r;
    std::shared_ptr<record> last(new record{s, s->n_queued + 1, false, {}});
    ev->last = last;
    enqueue(s, [last] {
        last->done = true;
        last->at = std::chrono::steady_clock::now();
    });
    return 0;
}

API cu_result cuEventSynchronize(cu_event ev) {
    guard lock(driver_lock);
    cu_result r = check(ev, "cuEventSynchronize");
    if (r == 0 && ev->last)
        wait_for(ev->last);
    return r == 0 ? ev->context->broken : r;
}

API cu_result cuEventElapsedTime(float *ms, cu_event from, cu_event to) {
    guard lock(driver_lock);
    cu_result r = check(from, "cuEventElapsedTime");
    if (r == 0)
        r = check(to, "cuEventElapsedTime");
    if (r == 0 && !(from->timed && to->timed && from->last && from->last->done && to->last && to->last->done))
        r = wrong(INVALID_HANDLE, "cuEventElapsedTime of events without times, or that nobody has waited for");
    if (r == 0)
        *ms = std::chrono::duration<float, std::milli>(to->last->at - from->last->at).count();
    return r;
}

static work work_of(const launch &l) {
    return {*l.kernel, l.grid, l.threads, l.shared, l.arg.get(), l.overlaps};
}

static void run(CUctx_st *c, launch &l) {
    if (l.breaks && c->broken == 0)
        c->broken = break_as;
    if (l.between)
        return gather_run(l.between);
    if (c->broken != 0)
        return;
    memory_enter(c->ordinal);
    if (l.ptx)
        c->broken = nvcc_run(c, l);
    else
        run_kernel(work_of(l), l.begun);
}

/* Launches, one after the other, that overlap where they may. Kernels release their successors at once, so a launch may
 * begin as soon as all blocks of the one before it have, which may have begun just as early: any number of launches
 * ahead, but never ahead of the first of them. Here one block of a launch does so, one launch ahead or two; then some
 * other launch's. */
static void run_all(CUctx_st *c, std::vector<launch> &launches) {
    size_t begun = 0; /* the one that has, or the last that had */
    for (size_t i = 0; i < launches.size(); i++) {
        size_t next = i + 1;
        auto may_begin = [&](size_t k) {
            return k < launches.size() && launches[k].overlaps && !launches[k].breaks && !launches[k].ptx;
        };
        if (begun <= i && c->broken == 0 && !launches[i].breaks && may_begin(next)) {
            begun = random_below(2) == 0 && may_begin(next + 1) ? next + 1 : next;
            memory_enter(c->ordinal);
            launches[begun].begun = begin_early(work_of(launches[begun]), c->ordinal);
        }
        run(c, launches[i]);
    }
}

static cu_result launch_kernel(cu_function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                               unsigned bz, unsigned shared, cu_stream s, void **params, void **extra, bool overlaps) {
    cu_result r = check(f, "cuLaunchKernel");
    if (r == 0)
        r = check(s, "cuLaunchKernel");
    if (r != 0)
        return r;
    if (gx == 0 || gy == 0 || gz == 0 || gx > 0x7fffffff || gy > 65535 || gz > 65535)
        return wrong(INVALID_VALUE, "%s: a grid of %u x %u x %u blocks", f->name(), gx, gy, gz);
    if (by != 1 || bz != 1 || bx == 0 || bx > 1024 || (int)bx > f->threads())
        return wrong(INVALID_VALUE, "%s: a block of %u x %u x %u threads, its bound is %d", f->name(), bx, by, bz,
                     f->threads());
    if (shared > (unsigned)f->shared_max)
        return wrong(INVALID_VALUE, "%s: %u bytes of shared memory, %d are set as its bound", f->name(), shared,
                     f->shared_max);
    if (!params || extra)
        return wrong(INVALID_VALUE, "%s: one argument is passed here, by params", f->name());
    if (fails_now())
        return LAUNCH_FAILED;
    void *arg = nullptr;
    if (posix_memalign(&arg, 64, f->arg_bytes()) != 0)
        return CU_OUT_OF_MEMORY;
    memcpy(arg, params[0], f->arg_bytes());
    launch l = {f->kernel, {(int)gx, (int)gy, (int)gz},      (int)bx,
                shared,    std::shared_ptr<void>(arg, free), !s->capturing && breaks_now(),
                overlaps};
    l.ptx = f->ptx;
    l.holds = f->holds;
    if (s->capturing) {
        s->captured.push_back(l);
    } else if (overlaps && s->last && !s->running && s->n_done < s->n_queued) {
        s->last->push_back(l);
    } else {
        std::shared_ptr<std::vector<launch>> launches(new std::vector<launch>{l});
        enqueue(s, [=] { run_all(s->context, *launches); });
        s->last = launches;
    }
    return 0;
}

API cu_result cuLaunchKernel(cu_function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                             unsigned bz, unsigned shared, cu_stream s, void **params, void **extra) {
    guard lock(driver_lock);
    return launch_kernel(f, gx, gy, gz, bx, by, bz, shared, s, params, extra, false);
}

API cu_result cuLaunchKernelEx(const struct cu_launch_config *c, cu_function f, void **params, void **extra) {
    guard lock(driver_lock);
    bool overlaps = false;
    for (unsigned i = 0; i < c->n_attributes; i++) {
        if (c->attributes[i].id != CU_LAUNCH_PROGRAMMATIC || !current() || !overlaps_on(current()->ordinal))
            return wrong(INVALID_VALUE, "cuLaunchKernelEx with attribute %d", c->attributes[i].id);
        overlaps = c->attributes[i].value.on != 0;
    }
    return launch_kernel(f, c->gx, c->gy, c->gz, c->bx, c->by, c->bz, c->shared, c->stream, params, extra, overlaps);
}

API cu_result cuStreamBeginCapture_v2(cu_stream s, int) {
    guard lock(driver_lock);
    cu_result r = check_running(s, "cuStreamBeginCapture");
    if (r == 0) {
        s->capturing = true;
        s->spoiled = false;
        s->captured.clear();
    }
    return r;
}

API cu_result cuStreamEndCapture(cu_stream s, cu_graph *g) {
    guard lock(driver_lock);
    cu_result r = check(s, "cuStreamEndCapture");
    *g = nullptr;
    if (r != 0)
        return r;
    if (!s->capturing)
        return wrong(INVALID_VALUE, "cuStreamEndCapture of a stream that is not recorded");
    s->capturing = false;
    if (s->spoiled)
        return CAPTURE_INVALIDATED;
    *g = make<CUgraph_st>();
    (*g)->launches.swap(s->captured);
    return 0;
}

API cu_result cuGraphInstantiateWithFlags(cu_graph_exec *x, cu_graph g, unsigned long long) {
    guard lock(driver_lock);
    cu_result r = check(g, "cuGraphInstantiateWithFlags");
    if (r != 0)
        return r;
    *x = make<CUgraphExec_st>();
    (*x)->launches = g->launches;
    return 0;
}

API cu_result cuGraphLaunch(cu_graph_exec x, cu_stream s) {
    guard lock(driver_lock);
    cu_result r = check(x, "cuGraphLaunch");
    if (r == 0)
        r = check_running(s, "cuGraphLaunch");
    if (r == 0 && fails_now())
        r = LAUNCH_FAILED;
    if (r != 0)
        return r;
    /* A gather by itself, so that another stream that waits for it need not wait for the whole. x may be destroyed
     * before it has run. */
    bool breaks = breaks_now();
    std::vector<launch> some;
    for (size_t i = 0; i < x->launches.size(); i++) {
        launch l = x->launches[i];
        l.breaks = breaks && i + 1 == x->launches.size();
        if (l.between)
            gather_queued(l.between, s);
        some.push_back(l);
        if (l.between || i + 1 == x->launches.size() || x->launches[i + 1].between) {
            enqueue(s, [=]() mutable { run_all(s->context, some); });
            some.clear();
        }
    }
    return 0;
}

API cu_result cuGraphExecDestroy(cu_graph_exec x) {
    guard lock(driver_lock);
    return destroy(x, "cuGraphExecDestroy");
}

API cu_result cuGraphDestroy(cu_graph g) {
    guard lock(driver_lock);
    return destroy(g, "cuGraphDestroy");
}
