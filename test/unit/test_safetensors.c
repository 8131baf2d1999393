/* Headers of safetensors files: what the safetensors package wrote, and what must be refused. */
#include "core/model/safetensors.h"
#include "core/model/shards.h"
#include "loading.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Test(safetensors, reads_what_the_package_wrote) {
    static const struct {
        const char *name, *dtype;
        enum dtype type;
        int n_dims;
        uint64_t dims[4];
        size_t n_bytes;
    } all[] = {
        {"empty", "F32", DT_F32, 2, {0, 4}, 0},
        {"five", "F32", DT_F32, 5, {1, 2, 1, 2}, 16},
        {"scalar", "F32", DT_F32, 0, {0}, 4},
        {"t.bfloat16", "BF16", DT_BF16, 2, {2, 3}, 12},
        {"t.bool", "BOOL", DT_COUNT, 2, {2, 3}, 6},
        {"t.float16", "F16", DT_F16, 2, {2, 3}, 12},
        {"t.float32", "F32", DT_F32, 2, {2, 3}, 24},
        {"t.float64", "F64", DT_COUNT, 2, {2, 3}, 48},
        {"t.float8_e4m3fn", "F8_E4M3", DT_COUNT, 2, {2, 3}, 6},
        {"t.float8_e5m2", "F8_E5M2", DT_COUNT, 2, {2, 3}, 6},
        {"t.int16", "I16", DT_COUNT, 2, {2, 3}, 12},
        {"t.int32", "I32", DT_COUNT, 2, {2, 3}, 24},
        {"t.int64", "I64", DT_COUNT, 2, {2, 3}, 48},
        {"t.int8", "I8", DT_COUNT, 2, {2, 3}, 6},
        {"t.uint8", "U8", DT_COUNT, 2, {2, 3}, 6},
        {"vector", "F32", DT_F32, 1, {3}, 12},
    };
    struct safetensors *s;
    struct err e = {0};
    size_t n, count = sizeof all / sizeof *all;
    char *p = load_file(GOLDEN "dtypes.safetensors", &n);
    cr_assert_eq(st_parse(&s, (uint8_t *)p, n, "f", &e), 0, "%s", e.msg);
    cr_assert_eq(st_n(s), count);
    for (size_t i = 0; i < count; i++) {
        const struct st_tensor *t = st_find(s, all[i].name);
        cr_assert(t != NULL, "%s", all[i].name);
        cr_assert_str_eq(t->dtype_name, all[i].dtype);
        cr_assert_eq(t->dtype, all[i].type, "%s", all[i].name);
        cr_assert_eq(t->n_dims, all[i].n_dims, "%s", all[i].name);
        cr_assert_eq(t->n_bytes, all[i].n_bytes, "%s", all[i].name);
        cr_assert_arr_eq(t->dims, all[i].dims, sizeof t->dims, "%s", all[i].name);
        cr_assert(st_in_file(s, t));
        if (t->dtype < DT_COUNT && t->n_dims == 2 && t->n_bytes) {
            float v[6];
            dtype_decode(t->dtype, p + t->begin, 6, v);
            for (int k = 0; k < 6; k++)
                cr_assert_eq(v[k], (float)k, "%s", all[i].name);
        }
    }
    cr_assert_null(st_find(s, "__metadata__"));
    cr_assert_null(st_find(s, "t.float"));
    st_free(s);
    free(p);
}

static int parse(struct safetensors **s, const char *header, size_t n_data, struct err *e) {
    struct wbuf w = {0};
    st_build(&w, header, n_data);
    uint8_t *p = exact_copy(w.p, w.n);
    int rc = st_parse(s, p, w.n, "F", e);
    free(p); /* nothing may point into the file's bytes */
    wbuf_free(&w);
    return rc;
}

static void refused(const char *header, const char *expected) {
    struct safetensors *s;
    struct err e = {0};
    cr_assert_eq(parse(&s, header, 64, &e), -1, "accepted: %s", header);
    cr_assert_null(s);
    expect_err(&e, ERR_MODEL, "F: ", expected, NULL);
}

#define A8 "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"

Test(safetensors, header_of_2_to_60_bytes) {
    struct safetensors *s;
    static const uint64_t lengths[] = {1ull << 60, UINT64_MAX, UINT64_MAX - 7, 1ull << 32, 100000001, 100000000, 3};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct wbuf w = {0};
        struct err e = {0};
        char digits[32];
        wbuf_u64(&w, lengths[i]);
        wbuf_str(&w, "{}");
        snprintf(digits, sizeof digits, "%llu", (unsigned long long)lengths[i]);
        cr_assert_eq(st_parse(&s, w.p, w.n, "F", &e), -1);
        expect_err(&e, ERR_MODEL, "F: ", digits, lengths[i] > 100000000 ? "not a safetensors file" : "truncated", NULL);
        wbuf_free(&w);
    }
}

Test(safetensors, overlapping_offsets) {
    refused("{" A8 ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", "tensors a and b overlap");
    refused("{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[7,8]}," A8 "}", "tensors a and b overlap");
    refused("{" A8 ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "overlap");
    /* around a third, and with nothing between them but an empty tensor */
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]},\"b\":{\"dtype\":\"U8\",\"shape\":[0],"
            "\"data_offsets\":[3,3]},\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[8,9]}}",
            "tensors a and c overlap");
}

Test(safetensors, impossible_offsets_and_sizes) {
    static const char *const offsets[] = {"[8,0]",
                                          "[0,7]",
                                          "[0,9]",
                                          "[0]",
                                          "[0,8,16]",
                                          "[-8,0]",
                                          "[0.0,8.0]",
                                          "8",
                                          "null",
                                          "[\"0\",\"8\"]",
                                          "[18446744073709551608,18446744073709551616]",
                                          "[18446744073709551607,18446744073709551615]",
                                          "[9223372036854775807,9223372036854775815]",
                                          "{\"0\":0,\"1\":8}"};
    static const char *const shapes[] = {"[3]",
                                         "[2,2]",
                                         "[]",
                                         "[-2]",
                                         "[2.0]",
                                         "[\"2\"]",
                                         "2",
                                         "null",
                                         "{}",
                                         "[4294967296,4294967296]",
                                         "[18446744073709551615]",
                                         "[4611686018427387905,2]",
                                         "[9223372036854775809,2]"};
    char header[400];
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        snprintf(header, sizeof header, "{\"a.b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":%s}}", offsets[i]);
        refused(header, "tensor a.b");
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        snprintf(header, sizeof header, "{\"a.b\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,8]}}", shapes[i]);
        refused(header, "tensor a.b");
    }
    refused("{\"a.b\":{\"shape\":[2],\"data_offsets\":[0,8]}}", "a.b has no dtype");
    refused("{\"a.b\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", "a.b has no dtype");
    refused("{\"a.b\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", "a.b");
    refused("{\"a.b\":[1]}", "a.b");
}

Test(safetensors, names) {
    refused("{" A8 "," A8 "}", "overlap");
    refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"a\":{\"dtype\":\"U8\",\"shape\":[0],"
            "\"data_offsets\":[0,0]}}",
            "tensor a stands twice");
    refused("{\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", "name is empty");
    refused("{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", "holds a NUL");
}

Test(safetensors, headers_that_are_no_json_object) {
    static const char *const bad[] = {"", "[]", "7", "null", "{", "{\"a\"}", "{} {}", "\x80\x81"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refused(bad[i], "header");
    struct safetensors *s;
    struct err e = {0};
    cr_assert_eq(parse(&s, "{}   ", 0, &e), 0, "padding with blanks is what writers do: %s", e.msg);
    cr_assert_eq(st_n(s), 0);
    cr_assert_null(st_find(s, "a"));
    st_free(s);
}

/* A type we do not know is no reason to refuse the file: nobody may ask for that tensor. */
Test(safetensors, unknown_dtype_is_kept_for_later) {
    struct safetensors *s;
    struct err e = {0};
    cr_assert_eq(
        parse(&s, "{" A8 ",\"b\":{\"dtype\":\"INT3_SUPER_LONG_NAME\",\"shape\":[7],\"data_offsets\":[8,11]}}", 64, &e),
        0, "%s", e.msg);
    cr_assert_eq(st_find(s, "b")->dtype, DT_COUNT);
    cr_assert_str_eq(st_find(s, "b")->dtype_name, "INT3_SUPER_");
    cr_assert_eq(st_find(s, "a")->dtype, DT_F32);
    st_free(s);
}

Test(safetensors, deep_nesting_is_no_recursion) {
    enum { DEPTH = 200000 };
    struct wbuf w = {0};
    struct safetensors *s;
    struct err e = {0};
    wbuf_u64(&w, DEPTH);
    for (int i = 0; i < DEPTH; i++)
        wbuf_str(&w, "[");
    cr_assert_eq(st_parse(&s, w.p, w.n, "F", &e), -1);
    expect_err(&e, ERR_MODEL, "not JSON", NULL);
    wbuf_free(&w);
}

/* Every length of a file: the header is whole or it is an error; a tensor is whole or it is not in the file. */
Test(safetensors, every_truncation) {
    size_t n;
    char *whole = load_file(GOLDEN "dtypes.safetensors", &n);
    uint64_t header;
    memcpy(&header, whole, 8);
    for (size_t k = 0; k <= n; k++) {
        struct safetensors *s;
        struct err e = {0};
        uint8_t *p = exact_copy(whole, k);
        int rc = st_parse(&s, p, k, "F", &e);
        cr_assert_eq(rc, k >= 8 + header ? 0 : -1, "%zu bytes", k);
        if (rc != 0)
            expect_err(&e, ERR_MODEL, "F: ", "truncated", NULL);
        for (size_t i = 0; rc == 0 && i < st_n(s); i++) {
            const struct st_tensor *t = st_at(s, i);
            cr_assert_eq(st_in_file(s, t), t->begin + t->n_bytes <= k, "%s at %zu", t->name, k);
        }
        st_free(s);
        free(p);
    }
    free(whole);
}

Test(safetensors, damaged_headers) {
    size_t n;
    char *whole = load_file(GOLDEN "dtypes.safetensors", &n);
    uint64_t header, state = 2, sum = 0;
    int accepted = 0;
    memcpy(&header, whole, 8);
    for (int k = 0; k < 20000; k++) {
        struct safetensors *s;
        struct err e = {0};
        uint8_t *p = exact_copy(whole, n);
        mutate(p, 8 + (size_t)header, &state);
        if (st_parse(&s, p, n, "F", &e) == 0) {
            accepted++;
            for (size_t i = 0; i < st_n(s); i++) {
                const struct st_tensor *t = st_at(s, i);
                cr_assert_eq(st_find(s, t->name), t);
                for (size_t b = 0; st_in_file(s, t) && b < t->n_bytes; b++)
                    sum += p[t->begin + b]; /* AddressSanitizer objects when this is outside */
            }
        } else {
            cr_assert_eq(e.kind, ERR_MODEL);
        }
        st_free(s);
        free(p);
    }
    cr_assert(accepted > 100 && accepted < 15000, "%d accepted: the noise tests nothing", accepted);
    cr_assert_neq(sum, 0);
    free(whole);
}

/* ---- the index of a sharded model ---- */

static int index_parse(struct shard_index *x, const char *json, struct err *e) {
    size_t n = strlen(json);
    uint8_t *p = exact_copy(json, n);
    int rc = shard_index_parse(x, (char *)p, n, "I", e);
    free(p);
    return rc;
}

Test(shard_index, entries_and_files) {
    struct shard_index x;
    struct err e = {0};
    cr_assert_eq(
        index_parse(
            &x,
            "{\"metadata\":{\"total_size\":9},\"weight_map\":{\"c\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\","
            "\"b\":\"m-2.safetensors\"}}",
            &e),
        0, "%s", e.msg);
    cr_assert_eq(x.n_files, 2);
    cr_assert_eq(x.n_entries, 3);
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(x.entries[i].tensor[0], "abc"[i]);
        cr_assert_str_eq(x.files[x.entries[i].file], i == 0 ? "m-1.safetensors" : "m-2.safetensors");
    }
    shard_index_free(&x);
}

/* The names come from whoever made the model: none may lead out of its directory. */
Test(shard_index, hostile_file_names) {
    static const char *const bad[] = {
        "\"../m.safetensors\"",
        "\"/etc/m.safetensors\"",
        "\"a/m.safetensors\"",
        "\"./m.safetensors\"",
        "\"..safetensors\"",
        "\".safetensors\"",
        "\"\"",
        "\"m.bin\"",
        "\"m.safetensors\\u0000x\"",
        "\"m\\u0000.safetensors\"",
        "\"m\\n.safetensors\"",
        "\"..\\\\m.safetensors\"",
        "7",
        "null",
        "[\"m.safetensors\"]",
        "\"m.safetensors/\"",
        "\"m\\u001b[2J.safetensors\"",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char json[200];
        struct shard_index x;
        struct err e = {0};
        snprintf(json, sizeof json, "{\"weight_map\":{\"ok\":\"m.safetensors\",\"t\":%s}}", bad[i]);
        cr_assert_eq(index_parse(&x, json, &e), -1, "accepted: %s", bad[i]);
        expect_err(&e, ERR_MODEL, "I: the file of tensor t is given as", "expected the plain name", NULL);
        cr_assert_null(strchr(e.msg, 0x1b));
    }
}

Test(shard_index, malformed) {
    static const char *const bad[] = {"",
                                      "[]",
                                      "{}",
                                      "{\"weight_map\":7}",
                                      "{\"weight_map\":{}}",
                                      "{\"weight_map\":{\"\":\"m.safetensors\"}}",
                                      "{\"weight_map\":{\"a\\u0000\":\"m.safetensors\"}}",
                                      "{\"weight_map\":{\"a\":\"m.safetensors\",\"a\":\"m.safetensors\"}}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct shard_index x;
        struct err e = {0};
        cr_assert_eq(index_parse(&x, bad[i], &e), -1, "accepted: %s", bad[i]);
        expect_err(&e, ERR_MODEL, "I: ", NULL);
        cr_assert(!x.entries && !x.files && x.n_entries == 0 && x.n_files == 0);
    }
}

Test(shard_index, more_files_than_any_model_has) {
    struct wbuf w = {0};
    struct shard_index x;
    struct err e = {0};
    wbuf_str(&w, "{\"weight_map\":{\"t\":\"m.safetensors\"");
    for (int i = 0; i < 1024; i++)
        wbuf_fmt(&w, ",\"t%d\":\"m%d.safetensors\"", i, i);
    wbuf_str(&w, "}}");
    cr_assert_eq(index_parse(&x, wbuf_cstr(&w), &e), -1);
    expect_err(&e, ERR_MODEL, "I: names more than 1024 files", NULL);
    wbuf_free(&w);
}

Test(shard_index, truncated_and_damaged) {
    static const char json[] =
        "{\"metadata\":{\"total_size\":9},\"weight_map\":{\"model.norm.weight\":\"m-00001-of-00002.safetensors\","
        "\"lm_head.weight\":\"m-00002-of-00002.safetensors\"}}";
    uint64_t state = 3;
    int accepted = 0;
    for (size_t k = 0; k < sizeof json - 1; k++) {
        struct shard_index x;
        struct err e = {0};
        uint8_t *p = exact_copy(json, k);
        cr_assert_eq(shard_index_parse(&x, (char *)p, k, "I", &e), -1);
        free(p);
    }
    for (int k = 0; k < 10000; k++) {
        struct shard_index x;
        struct err e = {0};
        uint8_t *p = exact_copy(json, sizeof json - 1);
        mutate(p, sizeof json - 1, &state);
        if (shard_index_parse(&x, (char *)p, sizeof json - 1, "I", &e) == 0) {
            accepted++;
            for (size_t i = 0; i < x.n_files; i++)
                cr_assert(!strchr(x.files[i], '/') && x.files[i][0] != '.');
        }
        shard_index_free(&x);
        free(p);
    }
    cr_assert(accepted > 100 && accepted < 9000, "%d accepted: the noise tests nothing", accepted);
}
