/* Fuzzes the two headers of a safetensors model: that of a file, and the index of a sharded one. The first byte of the
 * input chooses. What is accepted must keep its promises. */
#include "core/model/safetensors.h"
#include "core/model/shards.h"

#include <stdlib.h>
#include <string.h>

static volatile uint8_t sink;

static void check(int holds) {
    if (!holds)
        abort();
}

static void file(const uint8_t *p, size_t n) {
    struct safetensors *s;
    struct err e = {0};
    if (st_parse(&s, p, n, "fuzz", &e) != 0) {
        check(s == NULL && e.kind != ERR_NONE);
        return;
    }
    check(e.kind == ERR_NONE);
    for (size_t i = 0; i < st_n(s); i++) {
        const struct st_tensor *t = st_at(s, i);
        check(st_find(s, t->name) == t);
        check(t->begin >= 8 && t->n_bytes <= SIZE_MAX - t->begin);
        if (st_in_file(s, t) && t->n_bytes)
            sink ^= p[t->begin] ^ p[t->begin + t->n_bytes - 1];
    }
    st_free(s);
}

static void index_of_shards(const char *p, size_t n) {
    struct shard_index x;
    struct err e = {0};
    if (shard_index_parse(&x, p, n, "fuzz", &e) != 0)
        check(e.kind != ERR_NONE);
    for (size_t i = 0; i < x.n_entries; i++)
        check(x.entries[i].file < x.n_files && x.entries[i].tensor[0] &&
              (i == 0 || strcmp(x.entries[i - 1].tensor, x.entries[i].tensor) < 0));
    for (size_t i = 0; i < x.n_files; i++)
        check(x.files[i][0] != '.' && !strpbrk(x.files[i], "/\\\n\033"));
    shard_index_free(&x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    if (data[0] == 'I')
        index_of_shards((const char *)data + 1, size - 1);
    else
        file(data + 1, size - 1);
    return 0;
}
