/* test/tools/tok_ids.c - a tokenizer as a filter, for comparison with the oracles (test/oracle/make_tokens.py).
 *
 *   tok_ids TOKENIZER [-s] [-b] [-c] [-k] [-d] < requests > answers
 * A request is u32 length (little-endian) and as many bytes of text; its answer is u32 count, that many u32 ids, u32
 * length and the decoded text. -s: text may hold special tokens, -b: with bos, -c: text continues, -k: decode keeps
 * special tokens. -d: a request is u32 ids, which are decoded (the answer's count is 0). An answer with count 2^32-1 is
 * an error, its message in place of the text. */
#include "core/base/file.h"
#include "core/model/gguf.h"
#include "tok/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put32(uint32_t v) {
    uint8_t b[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    fwrite(b, 1, 4, stdout);
}

static void answer(const struct tokenizer *t, const char *text, size_t n, int flags, bool keep, bool decode) {
    struct err e = {0};
    struct ids ids = {0};
    struct wbuf out = {0};
    for (size_t i = 0; decode && i + 4 <= n; i += 4) {
        const uint8_t *b = (const uint8_t *)text + i;
        ids_push(&ids, b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24);
    }
    if ((!decode && tokenizer_encode(t, text, n, flags, &ids, &e) != 0) ||
        tokenizer_decode(t, ids.p, ids.n, keep, &out, &e) != 0) {
        put32(UINT32_MAX);
        put32((uint32_t)strlen(e.msg));
        fputs(e.msg, stdout);
    } else {
        put32(decode ? 0 : (uint32_t)ids.n);
        for (size_t i = 0; i < ids.n && !decode; i++)
            put32(ids.p[i]);
        put32((uint32_t)out.n);
        if (out.n)
            fwrite(out.p, 1, out.n, stdout);
    }
    fflush(stdout);
    ids_free(&ids);
    wbuf_free(&out);
}

static int open_any(struct tokenizer **t, const char *path, struct err *e) {
    struct file_map m = {0};
    struct gguf *g = NULL;
    size_t n = strlen(path);
    if (n < 5 || strcmp(path + n - 5, ".gguf") != 0)
        return tokenizer_open(t, path, e);
    int rc = file_map(&m, path, e);
    if (rc == 0)
        rc = gguf_parse(&g, m.p, m.n, path, e);
    if (rc == 0)
        rc = tokenizer_from_gguf(t, g, e);
    gguf_free(g);
    file_unmap(&m);
    return rc;
}

int main(int argc, char **argv) {
    struct err e = {0};
    struct tokenizer *t;
    int flags = 0;
    bool keep = false, decode = false;
    for (int i = 2; i < argc; i++) {
        flags |= strcmp(argv[i], "-s") == 0 ? TOK_SPECIAL : 0;
        flags |= strcmp(argv[i], "-b") == 0 ? TOK_BOS : 0;
        flags |= strcmp(argv[i], "-c") == 0 ? TOK_CONTINUE : 0;
        keep = keep || strcmp(argv[i], "-k") == 0;
        decode = decode || strcmp(argv[i], "-d") == 0;
    }
    if (argc < 2 || open_any(&t, argv[1], &e) != 0) {
        fprintf(stderr, "tok_ids: %s\n", argc < 2 ? "TOKENIZER [-s] [-b] [-c] [-k] [-d]" : e.msg);
        return 1;
    }
    uint8_t b[4];
    int rc = 0;
    while (fread(b, 1, 4, stdin) == 4) {
        size_t n = b[0] | (size_t)b[1] << 8 | (size_t)b[2] << 16 | (size_t)b[3] << 24;
        char *text = malloc(n + 1);
        if (!text || fread(text, 1, n, stdin) != n) {
            fprintf(stderr, "tok_ids: short request\n");
            free(text);
            rc = 1;
            break;
        }
        answer(t, text, n, flags, keep, decode);
        free(text);
    }
    tokenizer_free(t);
    return rc;
}
