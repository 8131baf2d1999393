/* What a large learned store costs: fills one with made-up text, then times opening it and drafting with it.
 *
 *   store_speed DIR [MILLIONS_OF_TOKENS]      DIR: an empty directory; the files stay there. 50 when not said
 *
 * The text: each token follows from the two before it in one of eight ways, the first of which is likeliest (1/2, 1/4,
 * ...), and now and then it is any token, the small ones more often. So it has contexts that repeat and a long tail of
 * those that do not, as text has; a full store knows some of it. Drafting goes on in a part that was not learned: for
 * each token the drafter is told, and grows a tree. */
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/draft/draft.h"
#include "core/draft/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { VOCAB = 32768, BLOCK = 1 << 16, DRAFTED = 4096 };

static uint64_t state = 1;

static uint64_t random_next(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    uint64_t x = (state ^ state >> 29) * 0xbf58476d1ce4e5b9u;
    return x ^ x >> 32;
}

static void write_text(uint32_t *t, size_t n) {
    uint32_t a = 1, b = 2;
    for (size_t i = 0; i < n; i++) {
        uint64_t r = random_next();
        if (r % 8 == 0) { /* any token */
            double u = (double)(r >> 11) / (double)(1ull << 53);
            t[i] = (uint32_t)(u * u * u * u * VOCAB);
        } else {
            uint32_t way = (uint32_t)__builtin_ctzll(r >> 8 | 128);
            uint64_t h = ((uint64_t)(a % 512) << 24 | (uint64_t)b << 4 | way) * 0x9e3779b97f4a7c15u;
            t[i] = (uint32_t)((h >> 40) * (h >> 40) % VOCAB);
        }
        a = b;
        b = t[i];
    }
}

static struct draft_store *open_store(const char *dir, const char *what) {
    const struct draft_store_opts o = {.vocab = VOCAB, .tokenizer = 50};
    struct draft_store *s;
    struct err e = {0};
    double t0 = clock_ms();
    if (draft_store_open(&s, dir, &o, &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        exit(1);
    }
    printf("%-28s %9.2f ms\n", what, clock_ms() - t0);
    return s;
}

/* Out of the page cache. */
static void cool(const char *dir, const char *end) {
    char path[4096];
    snprintf(path, sizeof path, "%s/drafts-%016x.%s", dir, 50, end);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fsync(fd) != 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        perror(path);
    if (fd >= 0)
        close(fd);
}

/* Of this process: others may be busy. */
static double cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void draft(struct draft_store *s, const uint32_t *t, int nodes) {
    static struct draft_node tree[512];
    struct drafter *d;
    struct err e = {0};
    struct drafter_opts o = {.vocab = VOCAB, .max_ctx = DRAFTED, .store = s};
    if (drafter_create(&d, &o, &e) != 0)
        exit(1);
    double t0 = cpu_ms();
    int hits = 0;
    for (uint32_t i = 1; i < DRAFTED; i++) {
        drafter_sync(d, t, i);
        int n = draft_tree_grow(d, NULL, 0, tree, 0, nodes, 0);
        for (int k = 0; k < n; k++)
            hits += tree[k].parent < 0 && tree[k].token == t[i];
    }
    double ms = (cpu_ms() - t0) / (DRAFTED - 1);
    printf("a tree of %3d for each token  %9.3f ms; %.2f of the tokens in it\n", nodes, ms, hits / (DRAFTED - 1.0));
    drafter_free(d);
}

int main(int argc, char **argv) {
    static uint32_t text[BLOCK];
    struct err e = {0};
    if (argc < 2)
        return 2;
    double millions = argc > 2 ? atof(argv[2]) : 50;
    struct draft_store *s = open_store(argv[1], "open, new");
    double t0 = clock_ms();
    for (double n = 0; n < millions * 1e6; n += BLOCK) {
        write_text(text, BLOCK);
        if (draft_store_learn(s, text, BLOCK, &e) != 0) {
            fprintf(stderr, "%s\n", e.msg);
            return 1;
        }
    }
    printf("%-28s %9.2f us a token; %.1f M tokens, %.1f MB\n", "learn", (clock_ms() - t0) / millions / 1e3,
           (double)draft_store_tokens(s) / 1e6, (double)draft_store_bytes(s) / 1e6);
    draft_store_close(s);
    draft_store_close(open_store(argv[1], "open"));
    cool(argv[1], "table");
    cool(argv[1], "log");
    s = open_store(argv[1], "open, out of the page cache");
    write_text(text, DRAFTED);
    for (int nodes = 1; nodes <= 64; nodes *= 2)
        draft(s, text, nodes);
    draft_store_close(s);
    return 0;
}
