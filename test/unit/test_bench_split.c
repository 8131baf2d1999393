/* cmd/bench: an answer that is not that of sequential decoding is found, named, and the exit status says so. */
#include "cmd/bench/split.h"
#include "cmd/command.h"
#include "core/decode/speculation.h"
#include "net/identity.h"
#include "test/unit/split_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TINY "test/models/tiny"

enum { NODES = 4, TOKENS = 8 };

static const struct backend_ops *sound;
static bool alters;

/* The middle layers, but for one number of the first row of passes that are neither a token nor the prompt. */
static int layers(struct stage *s, struct kv *kv, const struct batch *b, int lo, int hi, float *x, struct err *e) {
    int rc = sound->layers(s, kv, b, lo, hi, x, e);
    if (alters && hi == s->part.hi && b->n > 1 && b->n <= NODES + 1)
        x[0] += 1000;
    return rc;
}

/* The exit status; what it said on standard error in said. */
static int run(const char *dir, char *address, char *pin, char *said, size_t cap) {
    char prompts[80], err[80];
    struct engine_opts en = {.model = TINY, .front = 2, .back = 2, .threads = 1, .ctx = 128, .chunk = 64, .home = dir};
    en.tunnel.cloud = (struct strings){.p = &address, .n = 1};
    en.tunnel.pin = (struct strings){.p = &pin, .n = 1};
    iterate_opts_default(&en.iterate);
    const struct bench_split_opts o = {.mode = "stop-and-wait",
                                       .mbit = "0",
                                       .codec = "f32",
                                       .nodes = "4",
                                       .prompts = prompts,
                                       .tokens = TOKENS,
                                       .repeat = 1,
                                       .json = true};
    struct err e = {0};
    snprintf(prompts, sizeof prompts, "%s/prompts", dir);
    snprintf(err, sizeof err, "%s/err", dir);
    FILE *f = fopen(prompts, "w");
    cr_assert(f && fputs("A fox had a hat. The fox had a hat and the hat had a fox\n", f) >= 0 && fclose(f) == 0);
    fflush(stdout);
    fflush(stderr);
    int before[2] = {dup(1), dup(2)};
    cr_assert(before[0] >= 0 && before[1] >= 0 && freopen("/dev/null", "w", stdout) && freopen(err, "w", stderr));
    int status = bench_split(&en, &o, &e);
    fflush(stdout);
    fflush(stderr);
    cr_assert(dup2(before[0], 1) == 1 && dup2(before[1], 2) == 2 && close(before[0]) == 0 && close(before[1]) == 0);
    cr_assert_geq(status, 0, "%s", e.msg);
    f = fopen(err, "r");
    cr_assert(f);
    said[fread(said, 1, cap - 1, f)] = '\0';
    fclose(f);
    return status;
}

Test(bench_split, an_answer_that_differs_is_found) {
    char dir[] = "/tmp/test_bench_split.XXXXXX", pin[PIN_TEXT], said[8192];
    struct split_rig r;
    struct identity *id;
    struct err e = {0};
    cr_assert(mkdtemp(dir));
    cr_assert_eq(identity_open(&id, dir, &e), 0, "%s", e.msg);
    split_rig_open_for(&r, TINY, 2, 2, DT_F16, identity_pin(id), 1024);
    sound = r.stage->ops;
    static struct backend_ops ops;
    ops = *sound;
    ops.layers = layers;
    r.stage->ops = &ops; /* before anybody is there */
    pin_format(identity_pin(r.server), pin);
    for (int i = 0; i < 2; i++) {
        alters = i == 1;
        int status = run(dir, r.address, pin, said, sizeof said);
        bool named = strstr(said, "the answer to prompt 1 in mode stop-and-wait");
        cr_assert_eq(status, alters ? EXIT_FAILED : EXIT_DONE, "status %d: %s", status, said);
        cr_assert_eq(named, alters, "%s", said);
    }
    split_rig_close(&r);
    identity_free(id);
    char command[80];
    snprintf(command, sizeof command, "rm -r %s", dir);
    cr_assert_eq(system(command), 0);
}
