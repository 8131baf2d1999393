/* cmd/term.h - what a person sees beside the answer: notes, warnings, errors and progress, all on standard error.
 * Standard output belongs to results. Nothing here may show a prompt or an answer. */
#ifndef CMD_TERM_H
#define CMD_TERM_H

#include <stdbool.h>
#include <stdint.h>

/* quiet: errors only. verbose: the library's log lines too. command is put before each line ("splitinf chat: ..."). */
void term_setup(const char *command, bool quiet, bool verbose);
bool term_quiet(void);

void term_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void term_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void term_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* "417 B", "1.2 GB" (powers of 1000, as disks and bandwidths are counted). */
void term_size(double bytes, char out[16]);

/* Work that may take long. Nothing is shown before a second has passed; then a line that redraws itself on a terminal,
 * or a line every ten seconds elsewhere. */
struct progress {
    const char *what; /* "loading weights" */
    bool bytes;       /* done and all are bytes, not a count of unit */
    const char *unit; /* "tokens" */
    double t0, last;
    bool shown, ended;
};
void progress_start(struct progress *p, const char *what, const char *unit); /* unit NULL: bytes */
void progress_show(struct progress *p, uint64_t done, uint64_t all);
void progress_end(struct progress *p, uint64_t all); /* takes the line away, or says how long it took */

#endif
