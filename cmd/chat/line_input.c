#include "cmd/chat/line_input.h"

#include "cmd/chat/line_join.h"
#include "cmd/interrupt.h"
#include "core/base/wipe.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

enum { HISTORY_LINES = 1000, CTRL_D = 4 };

struct line_input {
    EditLine *edit;
    History *history;
    char *file;
    struct line_joiner join;
    bool interrupted;
};

static const char *prompt(EditLine *edit) {
    struct line_input *in;
    el_get(edit, EL_CLIENTDATA, &in);
    return in->join.more ? "... " : "> ";
}

/* One byte of the terminal. 1, 0 at its end, -1 when a signal asks to stop. */
static int next_byte(struct line_input *in, EditLine *edit, unsigned char *b) {
    for (;;) {
        if (!interrupt_wait(STDIN_FILENO)) {
            if (interrupt_asked()) {
                in->interrupted = !interrupt_terminated();
                return -1;
            }
            if (interrupt_take_resize())
                el_resize(edit);
            if (interrupt_take_resume()) { /* the shell has put its own terminal modes meanwhile */
                el_set(edit, EL_PREP_TERM, 1);
                el_set(edit, EL_REFRESH);
            }
            continue;
        }
        ssize_t n = read(STDIN_FILENO, b, 1);
        /* A Ctrl-D that was typed while an answer came, when the terminal still took whole lines, arrives as a NUL. */
        if (n == 1 && *b == '\0')
            *b = CTRL_D;
        if (n >= 0)
            return (int)n;
        if (errno != EINTR && errno != EAGAIN)
            return 0; /* EIO: the terminal has gone */
    }
}

/* libedit's own reader goes on after a signal; this one looks what the signal was. */
static int read_char(EditLine *edit, wchar_t *wc) {
    struct line_input *in;
    mbstate_t state = {0};
    el_get(edit, EL_CLIENTDATA, &in);
    for (;;) {
        unsigned char b;
        int n = next_byte(in, edit, &b);
        if (n <= 0)
            return n;
        size_t k = mbrtowc(wc, (const char *)&b, 1, &state);
        if (k == (size_t)-2)
            continue; /* a UTF-8 sequence is at most four bytes: this ends */
        if (k == (size_t)-1)
            *wc = L'\uFFFD';
        return 1;
    }
}

/* What is typed is UTF-8 here, also where the environment names no locale. */
static void want_utf8(void) {
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

int line_input_open(struct line_input **out, const char *file, struct err *e) {
    HistEvent ev;
    *out = NULL;
    struct line_input *in = calloc(1, sizeof *in);
    if (!in)
        return err_set(e, ERR_MEMORY, "out of memory");
    want_utf8();
    in->edit = el_init("splitinf", stdin, isatty(STDOUT_FILENO) ? stdout : stderr, stderr);
    in->history = history_init();
    if (!in->edit || !in->history) {
        line_input_close(in, NULL);
        return err_set(e, ERR_MEMORY, "out of memory for the line editor");
    }
    el_set(in->edit, EL_CLIENTDATA, in);
    el_set(in->edit, EL_PROMPT, prompt);
    el_set(in->edit, EL_EDITOR, "emacs");
    el_set(in->edit, EL_SIGNAL, 0);
    el_set(in->edit, EL_GETCFN, read_char);
    el_set(in->edit, EL_HIST, history, in->history);
    history(in->history, &ev, H_SETSIZE, HISTORY_LINES);
    history(in->history, &ev, H_SETUNIQUE, 1);
    if (file) {
        in->file = strdup(file);
        history(in->history, &ev, H_LOAD, file); /* none yet, or none that can be read: a new one begins */
    }
    *out = in;
    return 0;
}

static int save(struct line_input *in, struct err *e) {
    HistEvent ev;
    int fd = open(in->file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(e, errno, "writing the history %s", in->file);
    fchmod(fd, 0600); /* one that was there before may have been open to others */
    FILE *f = fdopen(fd, "w");
    if (!f) {
        close(fd);
        return err_set(e, ERR_MEMORY, "out of memory writing the history");
    }
    bool ok = history(in->history, &ev, H_SAVE_FP, f) >= 0;
    return fclose(f) == 0 && ok ? 0 : err_set(e, ERR_IO, "writing the history %s failed", in->file);
}

int line_input_close(struct line_input *in, struct err *e) {
    int rc = 0;
    if (!in)
        return 0;
    if (in->file)
        rc = save(in, e);
    if (in->edit)
        el_end(in->edit);
    if (in->history)
        history_end(in->history);
    free(in->file);
    free(in);
    return rc;
}

enum line_result line_input_read(struct line_input *in, struct wbuf *message) {
    HistEvent ev;
    wbuf_clear(message);
    in->join = (struct line_joiner){0};
    do {
        int n = 0;
        in->interrupted = false;
        /* Before the prompt is shown: libedit would do it after, and a Ctrl-D between would get lost. */
        el_set(in->edit, EL_PREP_TERM, 1);
        const char *line = el_gets(in->edit, &n);
        if (!line || n <= 0)
            return in->interrupted ? LINE_INTERRUPT : LINE_END;
        size_t len = strcspn(line, "\n");
        if (len)
            history(in->history, &ev, H_ENTER, line);
        line_join(&in->join, line, len, message);
    } while (in->join.more);
    return LINE_MESSAGE;
}
