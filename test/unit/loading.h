/* test/unit/loading.h - what the tests of loading share: scratch folders, files in memory, seeded noise, hostile
 * copies. */
#ifndef TEST_UNIT_LOADING_H
#define TEST_UNIT_LOADING_H

#include "core/base/buf.h"
#include "core/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define GOLDEN "test/golden/loading/"

/* A whole file; fails the test when it cannot be read. malloc'ed, with a NUL behind it. */
char *load_file(const char *path, size_t *n);
void store_file(const char *dir, const char *name, const void *p, size_t n);
void store_text(const char *dir, const char *name, const char *text);

/* A new empty folder; scratch_remove deletes it and the files in it. */
void scratch_make(char dir[64]);
void scratch_remove(const char *dir);

/* A copy of exactly n bytes on the heap, so that AddressSanitizer sees every read behind them. */
uint8_t *exact_copy(const void *p, size_t n);

/* SplitMix64. */
uint64_t noise(uint64_t *state);
/* Changes a few bytes, mostly to values that hurt parsers. */
void mutate(uint8_t *p, size_t n, uint64_t *state);

/* A safetensors file: length, header, then n_data bytes 0, 1, 2, ... */
void st_build(struct wbuf *w, const char *header, size_t n_data);

/* GGUF, piece by piece. */
void gg_start(struct wbuf *w, uint32_t version, uint64_t n_tensors, uint64_t n_kv);
void gg_str(struct wbuf *w, const char *s);
void gg_key_str(struct wbuf *w, const char *key, const char *value);
void gg_key_u32(struct wbuf *w, const char *key, uint32_t value);
void gg_key_f32(struct wbuf *w, const char *key, float value);
void gg_tensor(struct wbuf *w, const char *name, int n_dims, const uint64_t *dims, uint32_t type, uint64_t offset);
void gg_pad(struct wbuf *w, size_t alignment);

/* e must be of this kind and its message hold all of these texts. Ends with NULL. */
void expect_err(const struct err *e, enum err_kind kind, ...);

#endif
