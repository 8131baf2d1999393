#include "cmd/term.h"

#include "core/base/clock.h"
#include "core/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static struct {
    char name[48];
    bool quiet, tty;
    bool line_open; /* a progress line stands without its newline */
} term = {.name = "splitinf"};

static void clear_line(void) {
    if (term.line_open)
        fputs("\r\033[K", stderr);
    term.line_open = false;
}

static void say(const char *kind, const char *fmt, va_list ap) {
    clear_line();
    fprintf(stderr, "%s: %s", term.name, kind);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

static void log_sink_stderr(void *ctx, enum log_level level, const char *line) {
    static const char *const kinds[] = {"", "warning: ", "", "debug: "};
    (void)ctx;
    clear_line();
    fprintf(stderr, "%s: %s%s\n", term.name, kinds[level], line);
}

void term_setup(const char *command, bool quiet, bool verbose) {
    snprintf(term.name, sizeof term.name, "splitinf%s%s", command ? " " : "", command ? command : "");
    term.quiet = quiet;
    term.tty = isatty(STDERR_FILENO);
    log_to(log_sink_stderr, NULL, verbose ? LOG_DEBUG : quiet ? LOG_ERROR : LOG_WARN);
}

bool term_quiet(void) {
    return term.quiet;
}

void term_error(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say("", fmt, ap);
    va_end(ap);
}

void term_warn(const char *fmt, ...) {
    if (term.quiet)
        return;
    va_list ap;
    va_start(ap, fmt);
    say("warning: ", fmt, ap);
    va_end(ap);
}

void term_note(const char *fmt, ...) {
    if (term.quiet)
        return;
    va_list ap;
    va_start(ap, fmt);
    say("", fmt, ap);
    va_end(ap);
}

void term_size(double bytes, char out[16]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    int i = 0;
    while (bytes >= 999.5 && i < 4) {
        bytes /= 1000;
        i++;
    }
    snprintf(out, 16, i == 0 || bytes >= 99.95 ? "%.0f %s" : "%.1f %s", bytes, units[i]);
}

void progress_start(struct progress *p, const char *what, const char *unit) {
    *p = (struct progress){.what = what, .bytes = !unit, .unit = unit, .t0 = clock_ms()};
    p->last = p->t0;
}

static void amounts(const struct progress *p, uint64_t done, uint64_t all, double ms, char *out, size_t cap) {
    double rate = ms > 0 ? (double)done / ms * 1e3 : 0;
    if (p->bytes) {
        char d[16], a[16], r[16];
        term_size((double)done, d);
        term_size((double)all, a);
        term_size(rate, r);
        snprintf(out, cap, "%s of %s, %s/s", d, a, r);
    } else {
        snprintf(out, cap, "%llu of %llu %s, %.0f/s", (unsigned long long)done, (unsigned long long)all, p->unit, rate);
    }
}

void progress_show(struct progress *p, uint64_t done, uint64_t all) {
    double now = clock_ms();
    if (term.quiet || p->ended || now - p->t0 < 1000 || (p->shown && now - p->last < (term.tty ? 100 : 10000)))
        return;
    char text[100];
    amounts(p, done, all, now - p->t0, text, sizeof text);
    if (term.tty) {
        fprintf(stderr, "\r%s: %s: %s\033[K", term.name, p->what, text);
        fflush(stderr);
        term.line_open = true;
    } else if (done < all) { /* else progress_end says so in a moment */
        fprintf(stderr, "%s: %s: %s\n", term.name, p->what, text);
    }
    p->shown = true;
    p->last = now;
}

void progress_end(struct progress *p, uint64_t all) {
    if (!p->shown || p->ended)
        return;
    p->ended = true;
    clear_line();
    if (all == 0)
        return;
    char text[100];
    double ms = clock_ms() - p->t0;
    amounts(p, all, all, ms, text, sizeof text);
    fprintf(stderr, "%s: %s: %s, %.1f s\n", term.name, p->what, text, ms / 1e3);
}
