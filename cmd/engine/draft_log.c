#include "cmd/engine/draft_log.h"

#include "cmd/term.h"
#include "core/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct draft_log {
    FILE *file;
    double start_ms;
    char path[];
};

int draft_log_open(struct draft_log **out, const char *path, struct err *e) {
    size_t n = strlen(path) + 1;
    struct draft_log *l = *out = calloc(1, sizeof *l + n);
    if (!l)
        return err_set(e, ERR_MEMORY, "out of memory");
    memcpy(l->path, path, n);
    l->start_ms = clock_ms();
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || fchmod(fd, 0600) != 0 || !(l->file = fdopen(fd, "w"))) {
        err_set(e, ERR_IO, "cannot write %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        free(l);
        *out = NULL;
        return -1;
    }
    fputs("source,depth,p,path_p,fate,sent_ms,came_ms,over_ms\n", l->file);
    return 0;
}

void draft_log_guess(void *log, const struct session_guess *g) {
    static const char *const fates[] = {"accepted", "rejected", "cancelled"};
    struct draft_log *l = log;
    const char *source = g->source < N_DRAFT_SOURCES ? draft_source_name((enum draft_source)g->source) : "padding";
    fprintf(l->file, "%s,%u,%.4f,%.6f,%s,%.3f,", source, g->depth, (double)g->p, (double)g->path, fates[g->fate],
            g->sent_ms - l->start_ms);
    if (g->came_ms > 0)
        fprintf(l->file, "%.3f", g->came_ms - l->start_ms);
    fprintf(l->file, ",%.3f\n", g->over_ms - l->start_ms);
}

void draft_log_close(struct draft_log *l) {
    if (!l)
        return;
    bool bad = ferror(l->file);
    if (fclose(l->file) != 0 || bad)
        term_warn("%s is not complete: it could not be written", l->path);
    free(l);
}
