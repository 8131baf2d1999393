/* The config digest is SHA-256 over these lines, "name value\n", values in decimal, floats as eight hexadecimal digits
 * of their IEEE bits, truths as 0 or 1, in this order:
 *
 *   hidden n_layers n_heads n_kv_heads head_dim ffn rms_eps rope.0 .. rope.<head_dim/2 - 1>
 *   sliding_window sliding_from qkv_bias o_bias mlp_bias qk_norm
 *
 * rope.i is the inverse frequency that layers use, all scaling applied: what a config.json says with a few constants, a
 * GGUF file says with a tensor of divisors. The two ways round differently (of the 64 frequencies of Llama 3.1 three,
 * in the last bit), so these lines show sign, exponent and 12 bits of mantissa, rounded: the float's bits plus 0x400,
 * shifted right by 11. sliding_from is 0 while there is no window. What only the ends of a model use (vocabulary, head,
 * special ids) and what only names things is not in it.
 *
 * The weight fingerprint is SHA-256 over, for layers lo to hi - 1 and the tensors of each in the order of names.c: the
 * line "name dtype rows cols\n" with the HF name and the type as stored, and 8 samples of n = min(64, bytes of a row)
 * bytes. With d[0..8) the little-endian words of SHA-256(name), sample i are the n bytes at offset d[(i + 3) % 8] mod
 * (bytes of a row - n + 1) in row d[i] mod rows, bytes as stored, rows in HF's order. So it sees a few kilobytes of a
 * layer: a change elsewhere goes unseen. */
#include "net/fingerprint.h"

#include "core/model/names.h"
#include "net/digest.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert((int)DIGEST_BYTES == (int)WIRE_DIGEST, "digests on the wire are SHA-256");

__attribute__((format(printf, 2, 3))) static void add_line(struct digest *d, const char *fmt, ...) {
    char line[NAMES_MAX + 64];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    digest_add(d, line, (size_t)n);
}

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

int fingerprint_config(const struct model_config *c, uint8_t digest[WIRE_DIGEST], struct err *e) {
    const struct {
        const char *name;
        int value;
    } shape[] = {{"hidden", c->hidden},         {"n_layers", c->n_layers}, {"n_heads", c->n_heads},
                 {"n_kv_heads", c->n_kv_heads}, {"head_dim", c->head_dim}, {"ffn", c->ffn}},
      rest[] = {{"sliding_window", c->sliding_window},
                {"sliding_from", c->sliding_window ? c->sliding_from : 0},
                {"qkv_bias", c->qkv_bias},
                {"o_bias", c->o_bias},
                {"mlp_bias", c->mlp_bias},
                {"qk_norm", c->qk_norm}};
    float *inv_freq = malloc((size_t)c->head_dim / 2 * sizeof *inv_freq);
    if (!inv_freq)
        return err_set(e, ERR_MEMORY, "out of memory");
    config_rope_freqs(c, inv_freq);

    struct digest d;
    digest_start(&d);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        add_line(&d, "%s %d\n", shape[i].name, shape[i].value);
    add_line(&d, "rms_eps %08x\n", bits_of(c->rms_eps));
    for (int i = 0; i < c->head_dim / 2; i++)
        add_line(&d, "rope.%d %08x\n", i, (bits_of(inv_freq[i]) + 0x400) >> 11);
    for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
        add_line(&d, "%s %d\n", rest[i].name, rest[i].value);
    free(inv_freq);
    return digest_end(&d, digest, e);
}

static int add_tensor(struct digest *d, const struct tensor *t, struct err *e) {
    enum { SAMPLES = DIGEST_BYTES / 4, SAMPLE_BYTES = 64 };
    uint8_t of_name[DIGEST_BYTES];
    struct digest nd;
    digest_start(&nd);
    digest_add(&nd, t->name, strlen(t->name));
    if (digest_end(&nd, of_name, e) != 0)
        return -1;
    uint32_t word[SAMPLES];
    for (size_t i = 0; i < SAMPLES; i++)
        word[i] = (uint32_t)of_name[4 * i] | (uint32_t)of_name[4 * i + 1] << 8 | (uint32_t)of_name[4 * i + 2] << 16 |
                  (uint32_t)of_name[4 * i + 3] << 24;

    uint8_t *scratch = malloc(t->row_bytes);
    if (!scratch)
        return err_set(e, ERR_MEMORY, "out of memory");
    size_t n = t->row_bytes < SAMPLE_BYTES ? t->row_bytes : SAMPLE_BYTES;
    add_line(d, "%s %s %u %u\n", t->name, dtype_info(t->dtype)->name, t->rows, t->cols);
    for (int i = 0; i < SAMPLES; i++) {
        const uint8_t *row = tensor_row(t, word[i] % t->rows, scratch);
        digest_add(d, row + word[(i + 3) % SAMPLES] % (t->row_bytes - n + 1), n);
    }
    free(scratch);
    return 0;
}

/* Is every tensor of layers [lo, hi) there? */
static bool has_layers(const struct weights *w, int lo, int hi) {
    char name[NAMES_MAX];
    for (int l = lo; l < hi; l++)
        for (int i = 0; names_of_layer(weights_config(w), l, i, name); i++)
            if (!weights_file_there(w, name))
                return false;
    return true;
}

int fingerprint_weights(struct weights *w, int lo, int hi, uint8_t digest[WIRE_DIGEST], struct err *e) {
    const struct model_config *c = weights_config(w);
    if (lo < 0 || lo > hi || hi > c->n_layers)
        return err_set(e, ERR_USAGE, "no layers %d to %d in a model of %d", lo, hi, c->n_layers);
    memset(digest, 0, WIRE_DIGEST);
    if (!has_layers(w, lo, hi))
        return 0;

    int rc = 0;
    char name[NAMES_MAX];
    struct digest d;
    digest_start(&d);
    for (int l = lo; l < hi && rc == 0; l++)
        for (int i = 0; rc == 0 && names_of_layer(c, l, i, name); i++) {
            struct tensor_info info;
            struct tensor t;
            names_find(c, name, &info);
            rc = weights_get(w, name, info.rows, info.cols, &t, e);
            if (rc == 0)
                rc = add_tensor(&d, &t, e);
        }
    if (digest_end(&d, digest, e) != 0 || rc != 0) {
        memset(digest, 0, WIRE_DIGEST);
        return -1;
    }
    return 0;
}

int fingerprint_hello(struct weights *w, int lo, int hi, struct wire_hello *h, struct err *e) {
    const struct model_config *c = weights_config(w);
    *h = (struct wire_hello){.version = WIRE_VERSION,
                             .n_layers = (uint16_t)c->n_layers,
                             .lo = (uint16_t)lo,
                             .hi = (uint16_t)hi,
                             .hidden = (uint32_t)c->hidden};
    if (fingerprint_weights(w, lo, hi, h->weights, e) != 0)
        return -1;
    return fingerprint_config(c, h->config, e);
}
