/* test/forkrun.c - runs Criterion tests without Criterion's sandbox, for ThreadSanitizer.
 *
 * Criterion passes tests to its worker processes in an arena at a fixed address, inside the range that ThreadSanitizer
 * keeps for itself, and aborts. This file defines main and the few functions that a test calls back into the runner, so
 * that the linker prefers them to the library's; assertion texts still come from the library. One fork per test.
 *
 *   unit [--tap=FILE] [--filter GLOB] [other options are ignored]
 *
 * Understood: init, fini, signal, exit_code and disabled of tests, init and fini of suites. Not: timeouts,
 * parameterised tests. */
#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The linker's names for the ends of the sections in which Test and TestSuite put themselves; there may be no suites.
 */
extern struct criterion_test *__start_cr_tst[], *__stop_cr_tst[];
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak)), *__stop_cr_sts[] __attribute__((weak));

enum { PASS = 0, FAIL = 97, SKIP = 98 }; /* exit status of a test's process */

static FILE *tap;
static struct criterion_test *current;
static bool current_failed;

static _Noreturn void finish(int status) {
    fflush(NULL);
    exit(status); /* not _exit: a sanitizer has its say at exit */
}

static const struct criterion_test_extra_data *suite_of(const struct criterion_test *t) {
    static const struct criterion_test_extra_data none;
    for (struct criterion_suite **s = __start_cr_sts; s < __stop_cr_sts; s++)
        if (strcmp((*s)->name, t->category) == 0 && (*s)->data)
            return (*s)->data;
    return &none;
}

static void call(void (*fixture)(void)) {
    if (fixture)
        fixture();
}

void criterion_internal_test_setup(void) {
    call(suite_of(current)->init);
    call(current->data->init);
}

void criterion_internal_test_main(void (*fn)(void)) {
    fn();
}

void criterion_internal_test_teardown(void) {
    call(current->data->fini);
    call(suite_of(current)->fini);
}

void cr_log(enum criterion_severity severity, const char *msg, ...) {
    va_list ap;
    va_start(ap, msg);
    fprintf(stderr, "%s::%s: %s", current->category, current->name, severity == CR_LOG_ERROR ? "error: " : "");
    vfprintf(stderr, msg, ap);
    fputc('\n', stderr);
    va_end(ap);
}

void cri_asserts_passed_incr(void) {
}

void criterion_send_assert(struct criterion_assert_stats *stats) {
    if (stats->passed)
        return;
    current_failed = true;
    fprintf(stderr, "%s::%s: %s:%u: %s\n", current->category, current->name, stats->file, stats->line, stats->message);
}

void criterion_continue_test(void) {
}

void criterion_abort_test(void) {
    finish(FAIL);
}

void criterion_skip_test(const char *format, ...) {
    va_list ap;
    va_start(ap, format);
    fprintf(tap, "ok - %s::%s # SKIP ", current->category, current->name);
    vfprintf(tap, format, ap);
    fputc('\n', tap);
    va_end(ap);
    finish(SKIP);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Tests that run at the same time: as many as there are processors, as Criterion has it. */
enum { MAX_RUNNING = 16 };
static struct running {
    struct criterion_test *test;
    pid_t pid;
    double start;
} running[MAX_RUNNING];
static int n_running;

/* Waits for one of them and writes its line. */
static void reap(void) {
    int status, at = 0;
    pid_t pid = waitpid(-1, &status, 0);
    while (at < n_running && running[at].pid != pid)
        at++;
    if (pid < 0 || at == n_running) {
        perror("waitpid");
        exit(EXIT_FAILURE);
    }
    struct running r = running[at];
    running[at] = running[--n_running];
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    const struct criterion_test *t = r.test;
    if (code == SKIP)
        return; /* the test's process has written the line */
    bool ok = t->data->signal ? WIFSIGNALED(status) && WTERMSIG(status) == t->data->signal : code == t->data->exit_code;
    fprintf(tap, "%s - %s::%s (%.2fs)\n", ok ? "ok" : "not ok", t->category, t->name, now() - r.start);
    if (!ok && code != FAIL)
        fprintf(tap, "  ended with %s %d\n", code < 0 ? "signal" : "status", code < 0 ? WTERMSIG(status) : code);
}

static void run(struct criterion_test *t, int at_once) {
    if (t->data->disabled) {
        fprintf(tap, "ok - %s::%s # SKIP disabled\n", t->category, t->name);
        return;
    }
    while (n_running >= at_once)
        reap();
    fflush(NULL);
    struct running r = {t, fork(), now()};
    if (r.pid == 0) {
        current = t;
        t->test();
        finish(current_failed ? FAIL : PASS);
    }
    if (r.pid < 0) {
        perror("fork");
        exit(EXIT_FAILURE);
    }
    running[n_running++] = r;
}

int main(int argc, char **argv) {
    const char *filter = NULL;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int n = 0, at_once = processors < 1 ? 1 : processors < MAX_RUNNING ? (int)processors : MAX_RUNNING;
    tap = stdout;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--tap=", 6) == 0 && !(tap = fopen(argv[i] + 6, "a")))
            return EXIT_FAILURE;
        if (strcmp(argv[i], "--filter") == 0 && i + 1 < argc)
            filter = argv[++i];
    }
    for (struct criterion_test **t = __start_cr_tst; t < __stop_cr_tst; t++)
        n += !filter || fnmatch(filter, (*t)->data->identifier_, 0) == 0;
    fprintf(tap, "1..%d\n", n);
    for (struct criterion_test **t = __start_cr_tst; t < __stop_cr_tst; t++)
        if (!filter || fnmatch(filter, (*t)->data->identifier_, 0) == 0)
            run(*t, at_once);
    while (n_running > 0)
        reap();
    return fclose(tap) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
