/* test/tools/wire_corpus.c - writes what the fuzzers of net/wire start from: whole conversations, by the writers.
 *
 *   make build/test/tools/wire_corpus && build/test/tools/wire_corpus test/fuzz/corpus */
#include "net/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 3 };

static const char *root_dir;
static const float x[4 * HIDDEN] = {0, 1, -2, 0.5f, 65504, -0.25f, 3, 1e-7f, 5, 6, 7, 8};
static const struct node tree[4] = {{20, 19, 7}, {21, 20, 8}, {22, 20, 8}, {25, 21, 9}};
static const struct node chain[3] = {{1, 0, 0}, {4, 1, 1}, {9, 4, 2}};
static const uint32_t ids[4] = {20, 21, 22, 25};
static const uint8_t digest[2 * WIRE_DIGEST] = {1, 2, 3};

/* The first byte as test/fuzz/wire_fuzz.h reads it. */
static void begin(struct wbuf *w, enum codec c, bool greeted) {
    wbuf_u8(w, (uint8_t)((unsigned)c | (HIDDEN - 1) << 2 | (greeted ? 0x80 : 0)));
}

static void save(struct wbuf *w, const char *target, const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/%s", root_dir, target, name);
    FILE *f = fopen(path, "wb");
    if (w->bad || !f || fwrite(w->p, 1, w->n, f) != w->n || fclose(f) != 0) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    wbuf_free(w);
}

static void hellos(void) {
    struct wire_hello h = {.version = WIRE_VERSION, .codec = CODEC_F16, .n_layers = 32, .lo = 2, .hi = 30};
    struct wbuf w = {0};
    h.hidden = 4096;
    h.ctx = 8192;
    h.live = 256;
    begin(&w, CODEC_F16, false);
    wire_put_hello(&w, &h);
    wire_put_ping(&w, false, 42);
    wire_put_bye(&w);
    save(&w, "wire_cloud", "hello");
    h.version = 2;
    begin(&w, CODEC_F16, false);
    wire_put_hello(&w, &h);
    save(&w, "wire_cloud", "hello_of_version_2");
}

static void submits(void) {
    for (int c = 0; c < N_CODECS; c++) {
        struct wire_submit_parts s = {.seq = 1, .rewind = true, .rewind_len = 9, .rewind_head = 18};
        struct wbuf w = {0};
        s.commit = s.cancel = ids;
        s.n_commit = 2;
        s.n_cancel = 3;
        s.nodes = tree;
        s.n_nodes = 4;
        begin(&w, (enum codec)c, true);
        wire_put_submit(&w, &s, (enum codec)c, HIDDEN, x);
        wire_put_submit(&w, &(struct wire_submit_parts){.seq = 2}, (enum codec)c, HIDDEN, x);
        save(&w, "wire_cloud", (const char *[]){"submit_f32", "submit_f16", "submit_bf16", "submit_q8"}[c]);
    }
    struct wire_submit_parts s = {.seq = 1, .rewind = true, .audit = true, .nodes = chain, .n_nodes = 3};
    struct wbuf w = {0};
    begin(&w, CODEC_F16, true);
    wire_put_submit(&w, &s, CODEC_F16, HIDDEN, x);
    wire_put_challenge(&w, 1, 7);
    wire_put_error(&w, WIRE_E_PROTOCOL, "RESULT is not \xe2\x9c\x93 what I \033 expected \xff");
    save(&w, "wire_cloud", "audit_and_error");
}

static void answers(void) {
    struct wire_welcome m = {.version = WIRE_VERSION, .resumed = true, .len = 7, .head = 19, .max_rows = 256};
    struct wire_result r = {.seq = 1, .last = true, .n = 4, .compute_us = 1234, .wait_us = 77};
    struct wbuf w = {0};
    m.max_frame = 1 << 20;
    m.idle_ms = 60000;
    m.ttl_ms = 600000;
    snprintf(m.backend, sizeof m.backend, "cpu-avx512");
    begin(&w, CODEC_F16, false);
    wire_put_welcome(&w, &m);
    wire_put_ping(&w, true, 42);
    wire_put_result(&w, &r, ids, CODEC_F16, HIDDEN, x, NULL);
    save(&w, "wire_client", "welcome");
    for (int c = 0; c < N_CODECS; c++) {
        begin(&w, (enum codec)c, true);
        wire_put_result(&w, &r, ids, (enum codec)c, HIDDEN, x, c == CODEC_Q8 ? digest : NULL);
        wire_put_result(&w, &(struct wire_result){.seq = 2}, NULL, (enum codec)c, HIDDEN, x, NULL);
        save(&w, "wire_client", (const char *[]){"result_f32", "result_f16", "result_bf16", "result_q8"}[c]);
    }
    struct wire_opening o = {.seq = 1, .layer = 2, .n_leaves = 2, .n_rows = 2, .leaves = digest};
    begin(&w, CODEC_F16, true);
    wire_put_opening(&w, &o, HIDDEN, x, x + 2 * HIDDEN);
    save(&w, "wire_client", "opening");
    begin(&w, CODEC_F16, false);
    wire_put_error(&w, WIRE_E_FULL, "there is no room: 3 of 4 GiB are taken");
    save(&w, "wire_client", "error");
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: wire_corpus DIR\n");
        return 2;
    }
    root_dir = argv[1];
    hellos();
    submits();
    answers();
    return 0;
}
