/* Texts into the store, a piece at a time: files may be larger than memory. */
#include "cmd/engine/learned.h"
#include "cmd/interrupt.h"
#include "cmd/term.h"
#include "core/base/wipe.h"
#include "tok/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 64 << 10 };

struct priming {
    struct learned *learned;
    const struct tokenizer *tok;
    const char *path;
    int fd;
    uint64_t size, done, n_tokens; /* bytes of the file, and those learned */
    struct progress shown;
    struct ids ids;
    size_t n;
    uint8_t text[PIECE];
};

/* Reads on until the piece is full. 0: the file's end is in it; 1: more may come. */
static int fill(struct priming *p, struct err *e) {
    while (p->n < PIECE) {
        ssize_t k = read(p->fd, p->text + p->n, PIECE - p->n);
        if (k < 0 && errno == EINTR && !interrupt_asked())
            continue;
        if (k < 0 && errno == EINTR)
            return -1;
        if (k < 0)
            return err_sys(e, errno, "cannot read %s", p->path);
        if (k == 0)
            return 0;
        p->n += (size_t)k;
    }
    return 1;
}

/* Where to cut a full piece: behind a paragraph, else a line, else a word, else a character. */
static size_t place_to_cut(const struct priming *p) {
    size_t words = 0, lines = 0;
    for (size_t i = p->n - 1; i > PIECE / 2; i--) {
        if (p->text[i] == '\n' && p->text[i - 1] == '\n')
            return i + 1;
        if (p->text[i] == '\n' && !lines)
            lines = i + 1;
        if (p->text[i] == ' ' && !words)
            words = i; /* a space belongs to the word behind it */
    }
    if (lines || words)
        return lines ? lines : words;
    for (size_t back = 1; back <= 3; back++)
        if (utf8_partial(p->text + p->n - back, back))
            return p->n - back;
    return p->n;
}

static int learn_piece(struct priming *p, size_t n, struct err *e) {
    size_t good = utf8_valid_prefix(p->text, n),
           bom = p->done == 0 && n >= 3 && !memcmp(p->text, "\xef\xbb\xbf", 3) ? 3 : 0;
    const uint8_t *nul = memchr(p->text, '\0', n);
    if (nul)
        good = (size_t)(nul - p->text);
    if (good < n)
        return err_set(e, ERR_USAGE, "%s is no UTF-8 text: byte %llu; what stands before is learned in part", p->path,
                       (unsigned long long)p->done + good);
    ids_clear(&p->ids);
    if (tokenizer_encode(p->tok, (const char *)p->text + bom, n - bom, p->done ? TOK_CONTINUE : 0, &p->ids, e) != 0 ||
        draft_store_learn(p->learned->store, p->ids.p, p->ids.n, e) != 0)
        return -1;
    p->n_tokens += p->ids.n;
    p->done += n;
    memmove(p->text, p->text + n, p->n - n);
    p->n -= n;
    return 0;
}

static int prime_file(struct priming *p, struct err *e) {
    struct stat st;
    int more = 1, rc = -1;
    p->done = p->n_tokens = p->n = 0;
    p->fd = open(p->path, O_RDONLY | O_CLOEXEC);
    if (p->fd < 0 || fstat(p->fd, &st) != 0) {
        err_sys(e, errno, "cannot open %s", p->path);
        goto out;
    }
    p->size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    progress_start(&p->shown, "learning", NULL);
    while (more) {
        if ((more = fill(p, e)) < 0)
            goto out;
        if (p->n && learn_piece(p, more ? place_to_cut(p) : p->n, e) != 0)
            goto out;
        progress_show(&p->shown, p->done, p->size > p->done ? p->size : p->done);
        if (interrupt_asked())
            goto out;
    }
    rc = 0;
out:
    progress_end(&p->shown, rc == 0 ? p->done : 0);
    if (p->fd >= 0)
        close(p->fd);
    return rc;
}

int learned_prime(struct learned *l, const struct tokenizer *t, const struct strings *files, uint64_t *n_tokens,
                  struct err *e) {
    struct priming p = {.learned = l, .tok = t};
    char size[16];
    int rc = 0;
    *n_tokens = 0;
    for (int i = 0; i < files->n && rc == 0; i++) {
        p.path = files->p[i];
        rc = prime_file(&p, e);
        *n_tokens += p.n_tokens;
        term_size((double)draft_store_bytes(l->store), size);
        if (rc == 0)
            term_note("%llu tokens learned from %s; the store has %llu and takes %s", (unsigned long long)p.n_tokens,
                      p.path, (unsigned long long)draft_store_tokens(l->store), size);
    }
    ids_free(&p.ids);
    wipe(p.text, sizeof p.text);
    return rc;
}
