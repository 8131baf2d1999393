/* test/tools/pty_run.c - runs a program at a terminal of its own and plays a script against it, for test/e2e.
 *
 *   pty_run SECONDS COMMAND [ARGUMENT]... < script > transcript
 * Script lines:
 *   expect TEXT   wait until TEXT has been printed behind what the last expect found
 *   type TEXT     type TEXT and Enter
 *   keys TEXT     type TEXT; ^C in it is Ctrl-C and so on for ^A .. ^_
 *   sleep MS      let time pass
 *   kill SIGNAL   send a signal (a number) to the program
 *   hangup        close the terminal
 * What the program prints goes to standard output. Exit status: the program's (128 + signal when one ended it), or 99
 * when something was not printed, or the program did not end, within SECONDS for each. */
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FAILED = 99, MAX_OUTPUT = 16 << 20 };

static struct {
    int fd; /* of the terminal; -1: closed */
    pid_t pid;
    char *text; /* all that was printed */
    size_t n, seen;
    double patience_ms;
} run;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Takes what is printed within ms; false when the terminal is closed. */
static int take(double ms) {
    struct pollfd p = {.fd = run.fd, .events = POLLIN};
    if (run.fd < 0)
        return 0;
    if (poll(&p, 1, (int)ms) <= 0)
        return 1;
    ssize_t n = read(run.fd, run.text + run.n, MAX_OUTPUT - run.n - 1);
    if (n <= 0) /* EIO: the program has closed its side */
        return 0;
    fwrite(run.text + run.n, 1, (size_t)n, stdout);
    fflush(stdout);
    run.n += (size_t)n;
    run.text[run.n] = '\0';
    return 1;
}

static int give_up(const char *what, const char *text) {
    fprintf(stderr, "pty_run: %s%s\n", what, text);
    kill(run.pid, SIGKILL);
    waitpid(run.pid, NULL, 0);
    return FAILED;
}

static int expect(const char *text) {
    double until = now_ms() + run.patience_ms;
    for (;;) {
        char *at = memmem(run.text + run.seen, run.n - run.seen, text, strlen(text));
        if (at) {
            run.seen = (size_t)(at - run.text) + strlen(text);
            return 0;
        }
        double left = until - now_ms();
        if (left <= 0 || !take(left < 100 ? left : 100))
            return give_up("this was not printed: ", text);
    }
}

static void keys(const char *text, int enter) {
    for (; *text; text++) {
        char c = *text;
        if (c == '^' && text[1] >= '@' && text[1] <= '_')
            c = (char)(*++text - '@');
        if (write(run.fd, &c, 1) != 1)
            return;
    }
    if (enter && write(run.fd, "\r", 1) != 1)
        return;
}

static void let_pass(double ms) {
    double until = now_ms() + ms;
    while (now_ms() < until && take(until - now_ms())) {
    }
}

/* 0, or the exit status of a script that failed. */
static int play(char *line) {
    char *arg = line + strcspn(line, " \n");
    arg[strcspn(arg, "\n")] = '\0';
    if (*arg)
        *arg++ = '\0';
    if (strcmp(line, "expect") == 0)
        return expect(arg);
    if (strcmp(line, "type") == 0 || strcmp(line, "keys") == 0) {
        keys(arg, line[0] == 't');
    } else if (strcmp(line, "sleep") == 0) {
        let_pass(atof(arg));
    } else if (strcmp(line, "kill") == 0) {
        kill(run.pid, atoi(arg));
    } else if (strcmp(line, "hangup") == 0) {
        close(run.fd);
        run.fd = -1;
    } else if (*line) {
        return give_up("no such line in a script: ", line);
    }
    return 0;
}

int main(int argc, char **argv) {
    char line[4096];
    struct winsize size = {.ws_row = 40, .ws_col = 200};
    if (argc < 3 || !(run.text = calloc(1, MAX_OUTPUT))) {
        fprintf(stderr, "usage: pty_run SECONDS COMMAND [ARGUMENT]... < script\n");
        return 2;
    }
    run.patience_ms = atof(argv[1]) * 1e3;
    run.pid = forkpty(&run.fd, NULL, NULL, &size);
    if (run.pid < 0) {
        perror("pty_run: forkpty");
        return FAILED;
    }
    if (run.pid == 0) {
        execvp(argv[2], argv + 2);
        _exit(127);
    }
    while (fgets(line, sizeof line, stdin)) {
        int failed = play(line);
        if (failed)
            return failed;
    }
    int status = 0;
    double until = now_ms() + run.patience_ms;
    while (waitpid(run.pid, &status, WNOHANG) == 0) {
        if (now_ms() > until)
            return give_up("the program did not end", "");
        if (!take(50))
            usleep(10000);
    }
    while (run.fd >= 0 && take(0) && poll(&(struct pollfd){.fd = run.fd, .events = POLLIN}, 1, 0) > 0) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
