#include "core/draft/store_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_RANGES = 16 };

/* The handler may run between any two instructions: a range counts from the moment that end is set. */
static struct range {
    _Atomic(bool) used, hit;
    _Atomic(uintptr_t) start, end;
} ranges[MAX_RANGES];

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct sigaction before;
static uintptr_t page;

static void on_bus(int signal, siginfo_t *info, void *context) {
    uintptr_t at = (uintptr_t)info->si_addr;
    int saved = errno;
    (void)context;
    for (int i = 0; i < MAX_RANGES; i++) {
        struct range *r = &ranges[i];
        uintptr_t end = atomic_load(&r->end), from = at & ~(page - 1);
        if (at < atomic_load(&r->start) || at >= end)
            continue;
        /* mmap is not on POSIX's list of what a handler may call; on Linux it is a plain system call. */
        if (mmap((void *)from, end - from, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
            MAP_FAILED)
            break;
        atomic_store(&r->hit, true);
        errno = saved;
        return;
    }
    sigaction(signal, &before, NULL); /* the instruction is tried again, and faults again */
    errno = saved;
}

static void install(void) {
    struct sigaction a = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    page = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&a.sa_mask);
    sigaction(SIGBUS, &a, &before);
}

int store_guard_add(void *p, size_t n) {
    pthread_once(&once, install);
    for (int i = 0; i < MAX_RANGES && n > 0; i++) {
        struct range *r = &ranges[i];
        bool no = false;
        if (!atomic_compare_exchange_strong(&r->used, &no, true))
            continue;
        atomic_store(&r->hit, false);
        atomic_store(&r->start, (uintptr_t)p);
        atomic_store(&r->end, ((uintptr_t)p + n + page - 1) & ~(page - 1));
        return i;
    }
    return -1;
}

void store_guard_remove(int guard) {
    if (guard < 0)
        return;
    atomic_store(&ranges[guard].end, 0);
    atomic_store(&ranges[guard].used, false);
}

bool store_guard_hit(int guard) {
    return guard >= 0 && atomic_load(&ranges[guard].hit);
}
