#include "loading.h"

#include "core/base/file.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *load_file(const char *path, size_t *n) {
    struct err e = {0};
    char *p = NULL;
    cr_assert_eq(file_read(path, 64 << 20, &p, n, &e), 0, "%s", e.msg);
    return p;
}

void store_file(const char *dir, const char *name, const void *p, size_t n) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    cr_assert(f && fwrite(p, 1, n, f) == n && fclose(f) == 0, "cannot write %s", path);
}

void store_text(const char *dir, const char *name, const char *text) {
    store_file(dir, name, text, strlen(text));
}

void scratch_make(char dir[64]) {
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, 64, "%.40s/splitinf-load-XXXXXX", tmp ? tmp : "/tmp");
    cr_assert(mkdtemp(dir) != NULL);
}

void scratch_remove(const char *dir) {
    DIR *d = opendir(dir);
    cr_assert(d != NULL);
    for (struct dirent *en; (en = readdir(d));) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", dir, en->d_name);
        if (strcmp(en->d_name, ".") != 0 && strcmp(en->d_name, "..") != 0)
            cr_assert_eq(remove(path), 0);
    }
    closedir(d);
    cr_assert_eq(rmdir(dir), 0);
}

uint8_t *exact_copy(const void *p, size_t n) {
    uint8_t *q = malloc(n ? n : 1);
    cr_assert(q != NULL);
    memcpy(q, p, n);
    return q;
}

uint64_t noise(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void mutate(uint8_t *p, size_t n, uint64_t *state) {
    static const uint8_t bad[] = {0, 1, 0x7f, 0x80, 0xff, '"', '}', '-', '9', 'e'};
    for (uint64_t k = noise(state) % 4 + 1; k > 0; k--) {
        uint64_t r = noise(state);
        uint8_t v = r & 1 ? bad[(r >> 8) % sizeof bad] : (uint8_t)(r >> 8);
        p[(r >> 20) % n] = v;
    }
}

void st_build(struct wbuf *w, const char *header, size_t n_data) {
    wbuf_u64(w, strlen(header));
    wbuf_str(w, header);
    for (size_t i = 0; i < n_data; i++)
        wbuf_u8(w, (uint8_t)i);
}

void gg_start(struct wbuf *w, uint32_t version, uint64_t n_tensors, uint64_t n_kv) {
    wbuf_str(w, "GGUF");
    wbuf_u32(w, version);
    wbuf_u64(w, n_tensors);
    wbuf_u64(w, n_kv);
}

void gg_str(struct wbuf *w, const char *s) {
    wbuf_u64(w, strlen(s));
    wbuf_str(w, s);
}

void gg_key_str(struct wbuf *w, const char *key, const char *value) {
    gg_str(w, key);
    wbuf_u32(w, 8);
    gg_str(w, value);
}

void gg_key_u32(struct wbuf *w, const char *key, uint32_t value) {
    gg_str(w, key);
    wbuf_u32(w, 4);
    wbuf_u32(w, value);
}

void gg_key_f32(struct wbuf *w, const char *key, float value) {
    gg_str(w, key);
    wbuf_u32(w, 6);
    wbuf_f32(w, value);
}

void gg_tensor(struct wbuf *w, const char *name, int n_dims, const uint64_t *dims, uint32_t type, uint64_t offset) {
    gg_str(w, name);
    wbuf_u32(w, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++)
        wbuf_u64(w, dims[i]);
    wbuf_u32(w, type);
    wbuf_u64(w, offset);
}

void gg_pad(struct wbuf *w, size_t alignment) {
    while (w->n % alignment != 0)
        wbuf_u8(w, 0);
}

void expect_err(const struct err *e, enum err_kind kind, ...) {
    va_list ap;
    cr_assert_eq(e->kind, kind, "kind %s: %s", err_kind_name(e->kind), e->msg);
    va_start(ap, kind);
    for (const char *s; (s = va_arg(ap, const char *));)
        cr_assert(strstr(e->msg, s) != NULL, "no \"%s\" in: %s", s, e->msg);
    va_end(ap);
}
