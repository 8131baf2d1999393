/* The chat template of a model directory. */
#include "core/base/file.h"
#include "tok/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

enum { MAX_TEMPLATE = 1 << 20, MAX_CONFIG = 32 << 20 };

/* Reads and parses a JSON object of dir. *doc NULL when there is no such file. */
static int read_object(const char *dir, const char *name, yyjson_doc **doc, struct err *e) {
    char path[4096];
    char *data = NULL;
    size_t n;
    yyjson_read_err je;
    int rc = -1;
    *doc = NULL;
    if (file_join(path, sizeof path, dir, name, e) != 0)
        return -1;
    if (!file_exists(path))
        return 0;
    if (file_read(path, MAX_CONFIG, &data, &n, e) != 0)
        goto out;
    *doc = yyjson_read_opts(data, n, 0, NULL, &je);
    if (!*doc) {
        err_set(e, ERR_MODEL, "%s is not JSON: %s at byte %zu", path, je.msg, je.pos);
        goto out;
    }
    if (!yyjson_is_obj(yyjson_doc_get_root(*doc))) {
        err_set(e, ERR_MODEL, "%s is not a JSON object", path);
        yyjson_doc_free(*doc);
        *doc = NULL;
        goto out;
    }
    rc = 0;
out:
    free(data);
    return rc;
}

/* A token is a string, or an object whose "content" is one. *out stays NULL when it is neither. */
static int read_token(yyjson_val *v, const char *dir, const char *key, char **out, struct err *e) {
    if (yyjson_is_obj(v))
        v = yyjson_obj_get(v, "content");
    if (*out || !yyjson_is_str(v))
        return 0;
    if (strlen(yyjson_get_str(v)) != yyjson_get_len(v) || yyjson_get_len(v) > 1000)
        return err_set(e, ERR_MODEL, "%s: the %s of the tokenizer configuration is not usable text", dir, key);
    *out = strdup(yyjson_get_str(v));
    return *out ? 0 : err_set(e, ERR_MEMORY, "out of memory reading %s", dir);
}

static int read_tokens(yyjson_doc *doc, const char *dir, char **bos, char **eos, struct err *e) {
    yyjson_val *root = yyjson_doc_get_root(doc); /* NULL of NULL */
    if (read_token(yyjson_obj_get(root, "bos_token"), dir, "bos_token", bos, e) != 0)
        return -1;
    return read_token(yyjson_obj_get(root, "eos_token"), dir, "eos_token", eos, e);
}

/* The template of tokenizer_config.json: a string, or the one named "default" of a list. NULL without error: none. */
static int find_template(yyjson_doc *doc, const char *dir, yyjson_val **out, struct err *e) {
    yyjson_val *v = yyjson_obj_get(yyjson_doc_get_root(doc), "chat_template"), *item;
    size_t i, n;
    *out = NULL;
    if (!v || yyjson_is_null(v))
        return 0;
    if (yyjson_is_str(v)) {
        *out = v;
        return 0;
    }
    yyjson_arr_foreach(v, i, n, item) {
        if (yyjson_equals_str(yyjson_obj_get(item, "name"), "default"))
            *out = yyjson_obj_get(item, "template");
    }
    if (yyjson_is_str(*out))
        return 0;
    return err_set(e, ERR_MODEL,
                   "%s/tokenizer_config.json: chat_template is neither a string nor a list with one named \"default\"",
                   dir);
}

static int from_file(struct chat_template **t, const char *path, struct err *e) {
    char *data = NULL;
    size_t n;
    int rc = file_read(path, MAX_TEMPLATE, &data, &n, e);
    if (rc == 0)
        rc = chat_template_parse(t, data, n, path, e);
    free(data);
    return rc;
}

int chat_template_open_dir(struct chat_template **t, char **bos_token, char **eos_token, const char *dir,
                           struct err *e) {
    char path[4096], name[4096];
    yyjson_doc *config = NULL, *map = NULL;
    yyjson_val *text = NULL;
    int rc = -1;
    *t = NULL;
    *bos_token = *eos_token = NULL;
    if (!file_is_dir(dir))
        return err_set(e, ERR_IO, "%s is not a directory", dir);
    if (file_join(path, sizeof path, dir, "chat_template.jinja", e) != 0 ||
        file_join(name, sizeof name, dir, "tokenizer_config.json", e) != 0 ||
        read_object(dir, "tokenizer_config.json", &config, e) != 0 ||
        read_object(dir, "special_tokens_map.json", &map, e) != 0 ||
        read_tokens(config, dir, bos_token, eos_token, e) != 0 || read_tokens(map, dir, bos_token, eos_token, e) != 0)
        goto out;
    if (file_exists(path)) {
        rc = from_file(t, path, e);
    } else {
        rc = find_template(config, dir, &text, e);
        if (rc == 0 && text)
            rc = chat_template_parse(t, yyjson_get_str(text), yyjson_get_len(text), name, e);
    }
out:
    yyjson_doc_free(config);
    yyjson_doc_free(map);
    if (rc != 0) {
        free(*bos_token);
        free(*eos_token);
        *bos_token = *eos_token = NULL;
    }
    return rc;
}
