#include "cmd/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

static volatile sig_atomic_t n_int, term_signal, insist, resized, resumed;

static void on_int(int sig) {
    (void)sig;
    if (insist && n_int > 0)
        _exit(128 + SIGINT);
    n_int = n_int + 1;
}

static void on_term(int sig) {
    if (term_signal)
        _exit(128 + sig);
    term_signal = sig;
}

static void on_resize(int sig) {
    (void)sig;
    resized = 1;
}

static void on_resume(int sig) {
    (void)sig;
    resumed = 1;
}

static void handle(int sig, void (*fn)(int), int flags) {
    struct sigaction a = {.sa_handler = fn, .sa_flags = flags};
    sigemptyset(&a.sa_mask);
    sigaction(sig, &a, NULL);
}

void interrupt_setup(void) {
    /* Reads and writes must notice these; the others they need not (ppoll notices all). */
    handle(SIGINT, on_int, 0);
    handle(SIGTERM, on_term, 0);
    handle(SIGHUP, on_term, 0);
    handle(SIGWINCH, on_resize, SA_RESTART);
    handle(SIGCONT, on_resume, SA_RESTART);
    handle(SIGPIPE, SIG_IGN, SA_RESTART);
}

bool interrupt_asked(void) {
    return n_int > 0 || term_signal;
}

int interrupt_terminated(void) {
    return term_signal;
}

void interrupt_clear(void) {
    n_int = 0;
}

void interrupt_insist(bool on) {
    insist = on;
}

int interrupt_wait(int fd) {
    sigset_t all, old;
    sigemptyset(&all);
    sigaddset(&all, SIGINT);
    sigaddset(&all, SIGTERM);
    sigaddset(&all, SIGHUP);
    sigaddset(&all, SIGWINCH);
    sigaddset(&all, SIGCONT);
    /* Signals are held from the look at the flags until ppoll opens the gate, so none falls between. */
    sigprocmask(SIG_BLOCK, &all, &old);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    bool pending = interrupt_asked() || resized || resumed;
    int n = pending ? -1 : ppoll(&p, 1, NULL, &old);
    sigprocmask(SIG_SETMASK, &old, NULL);
    return n > 0;
}

bool interrupt_take_resize(void) {
    bool v = resized;
    resized = 0;
    return v;
}

bool interrupt_take_resume(void) {
    bool v = resumed;
    resumed = 0;
    return v;
}

int interrupt_status(void) {
    return 128 + (term_signal ? (int)term_signal : SIGINT);
}
