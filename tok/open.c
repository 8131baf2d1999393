/* Finding the tokenizer of a model directory, and what tokenizer_config.json says beside it. */
#include "core/base/file.h"
#include "tok/hf_json.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PATH 4096

static int open_file(struct tokenizer **out, const char *path, struct err *e) {
    const char *base = strrchr(path, '/');
    char *data;
    size_t n;
    int rc;
    base = base ? base + 1 : path;
    if (file_read(path, TOK_MAX_FILE, &data, &n, e) != 0)
        return -1;
    if (strncmp(base, "tekken", 6) == 0)
        rc = tokenizer_parse_tekken(out, data, n, path, e);
    else if (n && data[strspn(data, " \t\r\n")] == '{')
        rc = tokenizer_parse_hf(out, data, n, path, e);
    else
        rc = tokenizer_parse_spm(out, (const uint8_t *)data, n, path, e);
    free(data);
    return rc;
}

/* tokenizer.json, else tekken.json, else tokenizer.model, else the last of tokenizer.model.* by name (v3 after v1). */
static int find_file(char path[MAX_PATH], const char *dir, struct err *e) {
    static const char *const names[] = {"tokenizer.json", "tekken.json", "tokenizer.model"};
    char best[256] = "";
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (file_join(path, MAX_PATH, dir, names[i], e) != 0)
            return -1;
        if (file_exists(path))
            return 0;
    }
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));)
        if (strncmp(f->d_name, "tokenizer.model.", 16) == 0 && strcmp(f->d_name, best) > 0)
            snprintf(best, sizeof best, "%s", f->d_name);
    if (d)
        closedir(d);
    if (!best[0])
        return err_set(e, ERR_MODEL, "%s has no tokenizer.json, tekken.json or tokenizer.model", dir);
    return file_join(path, MAX_PATH, dir, best, e);
}

/* "bos_token": "<s>" or {"content": "<s>", ...} or null. What is named but unknown is an error; absent changes nothing.
 */
static int config_token(const struct tokenizer *t, yyjson_val *root, const char *key, int *id, struct err *e) {
    yyjson_val *v = yyjson_obj_get(root, key);
    if (!v)
        return 0;
    if (yyjson_is_obj(v))
        v = yyjson_obj_get(v, "content");
    const char *text = yyjson_get_str(v);
    *id = text ? tokenizer_special(t, text, yyjson_get_len(v)) : -1;
    if (text && *id < 0)
        return err_set(e, ERR_MODEL, "its %s %.60s is not in the tokenizer", key, text);
    return 0;
}

static int apply_config(struct tokenizer *t, yyjson_val *root, struct err *e) {
    int old_bos = t->bos;
    if (config_token(t, root, "bos_token", &t->bos, e) != 0 || config_token(t, root, "eos_token", &t->eos, e) != 0)
        return -1;
    t->spm.prefix_once = !json_bool(root, "legacy", true);
    yyjson_val *add = yyjson_obj_get(root, "add_bos_token");
    if (!yyjson_is_bool(add)) {
        if (t->kind == KIND_SPM && t->n_front && t->bos != old_bos) {
            t->n_front = 0;
            return t->bos >= 0 ? tok_add_front(t, (uint32_t)t->bos, e) : 0;
        }
        return 0;
    }
    if (t->n_front == 0 && yyjson_get_bool(add) && t->bos >= 0)
        return tok_add_front(t, (uint32_t)t->bos, e);
    if (t->n_front && !yyjson_get_bool(add) && (int)t->front[0] == t->bos)
        memmove(t->front, t->front + 1, --t->n_front * sizeof *t->front);
    return 0;
}

static int read_config(struct tokenizer *t, const char *dir, struct err *e) {
    char path[MAX_PATH], *data;
    size_t n;
    int rc = -1;
    yyjson_read_err why;
    if (file_join(path, sizeof path, dir, "tokenizer_config.json", e) != 0)
        return -1;
    if (!file_exists(path))
        return 0;
    if (file_read(path, TOK_MAX_FILE, &data, &n, e) != 0)
        return -1;
    yyjson_doc *doc = yyjson_read_opts(data, n, 0, NULL, &why);
    if (!doc)
        err_set(e, ERR_MODEL, "not valid JSON (%s at byte %zu)", why.msg, why.pos);
    else
        rc = apply_config(t, yyjson_doc_get_root(doc), e);
    if (rc != 0)
        err_wrap(e, "%s", path);
    yyjson_doc_free(doc);
    free(data);
    return rc;
}

int tokenizer_open(struct tokenizer **out, const char *path, struct err *e) {
    char file[MAX_PATH];
    *out = NULL;
    if (!file_is_dir(path))
        return open_file(out, path, e);
    if (find_file(file, path, e) != 0 || open_file(out, file, e) != 0)
        return -1;
    if (read_config(*out, path, e) == 0)
        return 0;
    tokenizer_free(*out);
    *out = NULL;
    return -1;
}
