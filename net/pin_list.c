/* Lists of pins: parsing, the allow list that threads share, and the file of known clouds. */
#include "net/pin_list.h"

#include "core/base/file.h"
#include "net/home.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct words {
    const char *p[2]; /* the first two words of a line */
    size_t len[2];
    int n;     /* how many of them there are */
    bool more; /* something stands behind them */
};

struct lines {
    const char *p, *end, *file;
    int line; /* number of the last one that was given out */
};

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\r';
}

static void split(const char *p, const char *end, struct words *w) {
    *w = (struct words){0};
    for (;;) {
        while (p < end && is_blank(*p))
            p++;
        if (p == end)
            return;
        if (w->n == 2) {
            w->more = true;
            return;
        }
        w->p[w->n] = p;
        while (p < end && !is_blank(*p))
            p++;
        w->len[w->n] = (size_t)(p - w->p[w->n]);
        w->n++;
    }
}

/* The next line that says something: 1 with its words, 0 at the end, -1 with e. */
static int next_line(struct lines *l, struct words *w, struct err *e) {
    while (l->p < l->end) {
        const char *p = l->p, *nl = memchr(p, '\n', (size_t)(l->end - p)), *end = nl ? nl : l->end;
        l->p = nl ? nl + 1 : l->end;
        l->line++;
        if (end - p > PIN_LIST_LINE_MAX) {
            err_set(e, ERR_USAGE, "%s, line %d: longer than %d bytes", l->file, l->line, PIN_LIST_LINE_MAX);
            return -1;
        }
        if (memchr(p, '\0', (size_t)(end - p))) {
            err_set(e, ERR_USAGE, "%s, line %d: a zero byte; this is no text file", l->file, l->line);
            return -1;
        }
        split(p, end, w);
        if (w->n > 0 && w->p[0][0] != '#')
            return 1;
    }
    return 0;
}

int allow_parse(struct pin **pins, int *n_pins, const char *text, size_t n, const char *file, struct err *e) {
    struct lines l = {text, text + n, file, 0};
    struct words w;
    struct pin *list = NULL, *grown;
    int count = 0, cap = 0, rc = -1, got;
    *pins = NULL;
    *n_pins = 0;
    if (n > PIN_LIST_FILE_MAX)
        return err_set(e, ERR_USAGE, "%s is larger than %d bytes", file, PIN_LIST_FILE_MAX);
    while ((got = next_line(&l, &w, e)) == 1) {
        if (count == cap) {
            cap = cap ? 2 * cap : 16;
            grown = realloc(list, (size_t)cap * sizeof *list);
            if (!grown) {
                err_set(e, ERR_MEMORY, "out of memory reading %s", file);
                goto out;
            }
            list = grown;
        }
        if (pin_parse_n(&list[count++], w.p[0], w.len[0], e) != 0) {
            err_wrap(e, "%s, line %d", file, l.line);
            goto out;
        }
    }
    if (got < 0)
        goto out;
    *pins = list;
    *n_pins = count;
    list = NULL;
    rc = 0;
out:
    free(list);
    return rc;
}

int known_parse(const char *address, struct pin *p, bool *found, const char *text, size_t n, const char *file,
                struct err *e) {
    struct lines l = {text, text + n, file, 0};
    struct words w;
    struct pin pin;
    size_t len = strlen(address);
    int got;
    *found = false;
    if (n > PIN_LIST_FILE_MAX)
        return err_set(e, ERR_USAGE, "%s is larger than %d bytes", file, PIN_LIST_FILE_MAX);
    while ((got = next_line(&l, &w, e)) == 1) {
        if (w.n != 2 || w.more)
            return err_set(e, ERR_USAGE, "%s, line %d: not of the form HOST:PORT PIN", file, l.line);
        if (pin_parse_n(&pin, w.p[1], w.len[1], e) != 0)
            return err_wrap(e, "%s, line %d", file, l.line);
        if (w.len[0] != len || strncasecmp(w.p[0], address, len) != 0)
            continue;
        if (*found && !pin_equal(&pin, p))
            return err_set(e, ERR_USAGE, "%s, line %d: %.100s stands above with another pin; remove one of the lines",
                           file, l.line, address);
        *p = pin;
        *found = true;
    }
    return got;
}

int address_check(const char *address, struct err *e) {
    size_t n = strlen(address);
    const char *colon = strrchr(address, ':');
    bool good = n <= ADDRESS_MAX && colon && colon > address && colon[1] && address[0] != '#';
    for (size_t i = 0; i < n; i++)
        good = good && address[i] > ' ' && address[i] < 0x7f;
    return good ? 0 : err_set(e, ERR_USAGE, "'%.100s' is no address; one looks like cloud.example:7433", address);
}

struct allow_list {
    pthread_mutex_t lock; /* of from_file and n_from_file; the rest never changes */
    struct pin *given, *from_file;
    int n_given, n_from_file;
    char *file;
};

int allow_list_create(struct allow_list **out, const struct pin *pins, int n, const char *file, struct err *e) {
    struct allow_list *a = calloc(1, sizeof *a);
    *out = NULL;
    if (!a)
        return err_set(e, ERR_MEMORY, "out of memory");
    pthread_mutex_init(&a->lock, NULL);
    a->given = calloc((size_t)n + 1, sizeof *pins);
    a->file = file ? strdup(file) : NULL;
    if (!a->given || (file && !a->file)) {
        err_set(e, ERR_MEMORY, "out of memory");
        goto out;
    }
    if (n > 0)
        memcpy(a->given, pins, (size_t)n * sizeof *pins);
    a->n_given = n;
    if (allow_list_reload(a, e) != 0)
        goto out;
    *out = a;
    return 0;
out:
    allow_list_free(a);
    return -1;
}

int allow_list_reload(struct allow_list *a, struct err *e) {
    char *text = NULL;
    size_t n_text;
    struct pin *pins, *old;
    int n;
    if (!a->file)
        return 0;
    if (file_read(a->file, PIN_LIST_FILE_MAX, &text, &n_text, e) != 0)
        return -1;
    int rc = allow_parse(&pins, &n, text, n_text, a->file, e);
    free(text);
    if (rc != 0)
        return -1;
    pthread_mutex_lock(&a->lock);
    old = a->from_file;
    a->from_file = pins;
    a->n_from_file = n;
    pthread_mutex_unlock(&a->lock);
    free(old);
    return 0;
}

void allow_list_free(struct allow_list *a) {
    if (!a)
        return;
    pthread_mutex_destroy(&a->lock);
    free(a->given);
    free(a->from_file);
    free(a->file);
    free(a);
}

static bool has(const struct pin *pins, int n, const struct pin *p) {
    for (int i = 0; i < n; i++)
        if (pin_equal(&pins[i], p))
            return true;
    return false;
}

bool allow_list_has(struct allow_list *a, const struct pin *p) {
    if (has(a->given, a->n_given, p))
        return true;
    pthread_mutex_lock(&a->lock);
    bool yes = has(a->from_file, a->n_from_file, p);
    pthread_mutex_unlock(&a->lock);
    return yes;
}

int allow_list_size(struct allow_list *a) {
    pthread_mutex_lock(&a->lock);
    int n = a->n_given + a->n_from_file;
    pthread_mutex_unlock(&a->lock);
    return n;
}

/* The file's bytes; none when there is no file. */
static int known_read(const char *home, char path[HOME_PATH], char **text, size_t *n, struct err *e) {
    *text = NULL;
    *n = 0;
    if (file_join(path, HOME_PATH, home, "known_clouds", e) != 0)
        return -1;
    return file_exists(path) ? file_read(path, PIN_LIST_FILE_MAX, text, n, e) : 0;
}

int known_cloud_find(const char *home, const char *address, struct pin *p, bool *found, struct err *e) {
    char path[HOME_PATH], *text;
    size_t n;
    *found = false;
    if (address_check(address, e) != 0 || known_read(home, path, &text, &n, e) != 0)
        return -1;
    int rc = text ? known_parse(address, p, found, text, n, path, e) : 0;
    free(text);
    return rc;
}

int known_cloud_add(const char *home, const char *address, const struct pin *p, struct err *e) {
    char path[HOME_PATH], pin[PIN_TEXT], line[ADDRESS_MAX + PIN_TEXT + 4], *text = NULL, *whole = NULL;
    struct pin old;
    bool found = false;
    size_t n;
    int rc = -1, lock = -1;
    if (address_check(address, e) != 0 || home_make(home, e) != 0 || (lock = home_lock(home, e)) < 0)
        return -1;
    if (known_read(home, path, &text, &n, e) != 0 ||
        (text && known_parse(address, &old, &found, text, n, path, e) != 0))
        goto out;
    if (found) {
        pin_format(&old, pin);
        rc = pin_equal(&old, p)
                 ? 0
                 : err_set(e, ERR_USAGE, "%.100s is known in %s with another pin, %s", address, path, pin);
        goto out;
    }
    pin_format(p, pin);
    bool open_line = text && n > 0 && text[n - 1] != '\n';
    int n_line = snprintf(line, sizeof line, "%s%s %s\n", open_line ? "\n" : "", address, pin);
    whole = malloc(n + (size_t)n_line);
    if (!whole) {
        err_set(e, ERR_MEMORY, "out of memory writing %s", path);
        goto out;
    }
    if (text)
        memcpy(whole, text, n);
    memcpy(whole + n, line, (size_t)n_line);
    rc = home_write(path, whole, n + (size_t)n_line, e);
out:
    home_unlock(lock);
    free(text);
    free(whole);
    return rc;
}
