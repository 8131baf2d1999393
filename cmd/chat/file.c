#include "cmd/chat/file.h"

#include "cmd/json.h"
#include "core/base/file.h"
#include "core/base/wipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FORMAT = 1, MAX_FILE = 256 << 20, MAX_MESSAGES = 100000 };

/* ---- writing ---- */

static bool add_setting(yyjson_mut_doc *d, yyjson_mut_val *o, const struct opt *opt, const void *base) {
    const void *v = (const char *)base + opt->offset;
    switch (opt->type) {
    case OPT_INT:
        return yyjson_mut_obj_add_int(d, o, opt->name, *(const int *)v);
    case OPT_FLOAT:
        return yyjson_mut_obj_add_real(d, o, opt->name, *(const double *)v);
    case OPT_U64:
        return yyjson_mut_obj_add_uint(d, o, opt->name, *(const uint64_t *)v);
    case OPT_STRINGS: {
        const struct strings *s = v;
        yyjson_mut_val *list = yyjson_mut_arr_with_str(d, (const char **)s->p, (size_t)s->n);
        return yyjson_mut_obj_add_val(d, o, opt->name, list ? list : yyjson_mut_arr(d));
    }
    default:
        return false; /* no setting has another type */
    }
}

static yyjson_mut_doc *document(const struct chat *c) {
    yyjson_mut_doc *d = yyjson_mut_doc_new(&json_wiping);
    if (!d)
        return NULL;
    yyjson_mut_val *root = yyjson_mut_obj(d), *messages = yyjson_mut_arr(d), *settings = yyjson_mut_obj(d);
    yyjson_mut_doc_set_root(d, root);
    bool ok = yyjson_mut_obj_add_int(d, root, "splitinf_chat", FORMAT) &&
              yyjson_mut_obj_add_str(d, root, "model", c->o->engine.model) &&
              yyjson_mut_obj_add_val(d, root, "settings", settings) &&
              yyjson_mut_obj_add_val(d, root, "messages", messages);
    for (const struct opt *o = chat_settings_options; o->name && ok; o++)
        if (o->type != OPT_U64 || c->seed_given) /* a seed that nobody chose is no setting */
            ok = add_setting(d, settings, o, &c->o->settings);
    for (size_t i = 0; i < c->conv.n && ok; i++) {
        yyjson_mut_val *m = yyjson_mut_arr_add_obj(d, messages);
        ok = m && yyjson_mut_obj_add_str(d, m, "role", c->conv.messages[i].role) &&
             yyjson_mut_obj_add_str(d, m, "content", c->conv.messages[i].content);
    }
    if (ok)
        return d;
    yyjson_mut_doc_free(d);
    return NULL;
}

static int write_whole(int fd, const char *text, size_t n) {
    while (n) {
        ssize_t k = write(fd, text, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -1;
        text += k;
        n -= (size_t)k;
    }
    return fsync(fd);
}

int chat_file_save(const struct chat *c, const char *path, struct err *e) {
    char *temp = NULL, *text = NULL;
    size_t n = 0;
    int fd = -1, rc = -1;
    yyjson_write_err why = {.code = YYJSON_WRITE_ERROR_MEMORY_ALLOCATION};
    yyjson_mut_doc *d = document(c);
    if (d)
        text = yyjson_mut_write_opts(d, YYJSON_WRITE_PRETTY | YYJSON_WRITE_NEWLINE_AT_END, &json_wiping, &n, &why);
    if (!text) {
        json_write_error(&why, "the conversation", e);
        goto out;
    }
    if (asprintf(&temp, "%s.XXXXXX", path) < 0) {
        temp = NULL;
        err_set(e, ERR_MEMORY, "out of memory saving the conversation");
        goto out;
    }
    fd = mkostemp(temp, O_CLOEXEC); /* mode 0600 */
    if (fd < 0 || write_whole(fd, text, n) != 0 || rename(temp, path) != 0) {
        err_sys(e, errno, "saving the conversation to %s", path);
        if (fd >= 0)
            unlink(temp);
        goto out;
    }
    rc = 0;
out:
    if (fd >= 0)
        close(fd);
    if (text)
        json_wiping.free(NULL, text);
    free(temp);
    yyjson_mut_doc_free(d);
    return rc;
}

/* ---- reading ---- */

static int not_right(struct err *e, const char *path, const char *what) {
    return err_set(e, ERR_USAGE, "%s is no saved conversation: %s", path, what);
}

static int load_setting(struct chat_settings *s, const struct opt *o, yyjson_val *v, const char *path, struct err *e) {
    char number[40], label[80];
    snprintf(label, sizeof label, "setting %s", o->name);
    if (o->type == OPT_STRINGS && yyjson_is_arr(v)) {
        size_t i, n;
        yyjson_val *item;
        yyjson_arr_foreach(v, i, n, item) {
            if (!yyjson_is_str(item) || strlen(yyjson_get_str(item)) != yyjson_get_len(item))
                return not_right(e, path, label);
            if (opt_set(o, s, yyjson_get_str(item), label, e) != 0)
                return -1;
        }
        return 0;
    }
    if (o->type == OPT_STRINGS || !yyjson_is_num(v))
        return not_right(e, path, label);
    if (yyjson_is_uint(v))
        snprintf(number, sizeof number, "%llu", (unsigned long long)yyjson_get_uint(v));
    else if (yyjson_is_sint(v))
        snprintf(number, sizeof number, "%lld", (long long)yyjson_get_sint(v));
    else
        snprintf(number, sizeof number, "%.17g", yyjson_get_real(v));
    return opt_set(o, s, number, label, e) != 0 ? err_wrap(e, "%s", path) : 0;
}

static void free_settings(struct chat_settings *s) {
    const struct opt_group g = {.opts = chat_settings_options};
    const struct opt_table t = {.groups = &g, .n_groups = 1};
    opts_free(&t, s);
}

/* Settings that the file does not name keep their value, but lists that it does not name are empty. */
static int load_settings(const struct chat *c, struct chat_settings *s, bool *seed, yyjson_val *root, const char *path,
                         struct err *e) {
    yyjson_val *settings = yyjson_obj_get(root, "settings");
    *s = c->o->settings;
    s->bias = s->stop = (struct strings){0};
    *seed = c->seed_given;
    if (settings && !yyjson_is_obj(settings))
        return not_right(e, path, "\"settings\" is no object");
    for (const struct opt *o = chat_settings_options; o->name; o++) {
        yyjson_val *v = yyjson_obj_get(settings, o->name);
        if (v && load_setting(s, o, v, path, e) != 0)
            return -1;
        *seed = *seed || (v && o->type == OPT_U64);
    }
    return 0;
}

static bool known_role(const char *role) {
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    for (size_t i = 0; role && i < sizeof roles / sizeof *roles; i++)
        if (strcmp(role, roles[i]) == 0)
            return true;
    return false;
}

static int load_messages(struct conversation *conv, yyjson_val *root, const char *path, struct err *e) {
    yyjson_val *messages = yyjson_obj_get(root, "messages"), *m;
    size_t i, n;
    if (!yyjson_is_arr(messages) || yyjson_arr_size(messages) > MAX_MESSAGES)
        return not_right(e, path, "\"messages\" is no list, or too long a one");
    yyjson_arr_foreach(messages, i, n, m) {
        yyjson_val *content = yyjson_obj_get(m, "content");
        const char *role = yyjson_get_str(yyjson_obj_get(m, "role")), *text = yyjson_get_str(content);
        if (!known_role(role) || !text || strlen(text) != yyjson_get_len(content))
            return not_right(e, path, "a message without a role (system, user, assistant, tool) or content");
        if (conversation_add(conv, role, text, e) != 0)
            return -1;
    }
    return 0;
}

int chat_file_load(struct chat *c, const char *path, struct err *e) {
    char *data = NULL;
    size_t n = 0;
    yyjson_doc *d = NULL;
    struct conversation conv;
    struct chat_settings settings = {0};
    bool seed;
    int rc = -1;
    conversation_init(&conv);
    if (file_read(path, MAX_FILE, &data, &n, e) != 0)
        return -1;
    d = yyjson_read_opts(data, n, YYJSON_READ_NOFLAG, &json_wiping, NULL);
    yyjson_val *root = yyjson_doc_get_root(d);
    if (!yyjson_is_obj(root) || yyjson_get_uint(yyjson_obj_get(root, "splitinf_chat")) != FORMAT) {
        not_right(e, path, "it must be a JSON object with \"splitinf_chat\": 1");
        goto out;
    }
    if (load_messages(&conv, root, path, e) != 0 || load_settings(c, &settings, &seed, root, path, e) != 0)
        goto out;
    struct chat_settings old = c->o->settings;
    c->o->settings = settings;
    if (chat_check_settings(c, e) != 0) { /* right by the table, but not for this model */
        c->o->settings = old;
        goto out;
    }
    settings = old; /* to be freed */
    c->seed_given = seed;
    struct conversation gone = c->conv;
    c->conv = conv;
    conv = gone;
    rc = 0;
out:
    free_settings(&settings);
    conversation_free(&conv);
    yyjson_doc_free(d);
    wipe_free(data, n);
    return rc;
}
