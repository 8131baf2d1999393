/* test/tools/tun_wan.c - two machines and a wide area network between them, on one machine: each command runs in a
 * network namespace of its own with nothing but a TUN device, and this program carries the packets from one to the
 * other, late, at a rate, and not all of them. What the two speak is the kernel's own TCP, with its handshake, slow
 * start and retransmissions.
 *
 *   tun_wan [--rtt MS] [--mbit N] [--loss PERCENT] [--seed N] SERVER CLIENT
 *
 * Both are shell commands. SERVER is at 10.77.0.1, CLIENT at 10.77.0.2. When CLIENT ends, SERVER gets SIGTERM, and the
 * status is CLIENT's. 77: not permitted here, and why on standard error. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/if_tun.h>
#include <math.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NOT_PERMITTED = 77, MTU = 1500, MOST_WAIT_MS = 100, PATIENCE_MS = 10000 };

static double rtt_ms = 80, mbit, loss;
static volatile sig_atomic_t asked_to_end;

struct packet {
    struct packet *next;
    double release_ms;
    size_t n;
    unsigned char bytes[];
};

/* One direction: from side to the other one. */
struct way {
    struct packet *head, **tail;
    double free_ms; /* when the bottleneck is done with all that came so far */
};

struct side {
    pid_t pid;
    int tun, control; /* control: a byte through it starts the command */
};

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static _Noreturn void fail(int status, const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(status);
}

/* ---- in the namespace ---- */

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        fail(NOT_PERMITTED, path);
    close(fd);
}

static void leave_network(void) {
    char map[64];
    unsigned uid = geteuid(), gid = getegid();
    if (unshare(CLONE_NEWNET) == 0)
        return;
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        fail(NOT_PERMITTED, "no network namespace may be made");
    write_file("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1", uid);
    write_file("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "0 %u 1", gid);
    write_file("/proc/self/gid_map", map);
}

static void bring_up(int s, const char *name, const char *address) {
    struct ifreq r = {0};
    struct sockaddr_in *a = (struct sockaddr_in *)&r.ifr_addr;
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    if (address) {
        a->sin_family = AF_INET;
        inet_pton(AF_INET, address, &a->sin_addr);
        if (ioctl(s, SIOCSIFADDR, &r) != 0)
            fail(NOT_PERMITTED, "SIOCSIFADDR");
        inet_pton(AF_INET, "255.255.255.0", &a->sin_addr);
        if (ioctl(s, SIOCSIFNETMASK, &r) != 0)
            fail(NOT_PERMITTED, "SIOCSIFNETMASK");
    }
    if (ioctl(s, SIOCGIFFLAGS, &r) != 0)
        fail(NOT_PERMITTED, "SIOCGIFFLAGS");
    r.ifr_flags |= IFF_UP;
    if (ioctl(s, SIOCSIFFLAGS, &r) != 0)
        fail(NOT_PERMITTED, "SIOCSIFFLAGS");
}

static int open_tun(const char *address) {
    struct ifreq r = {.ifr_flags = IFF_TUN | IFF_NO_PI};
    int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (tun < 0)
        fail(NOT_PERMITTED, "/dev/net/tun");
    snprintf(r.ifr_name, sizeof r.ifr_name, "wan0");
    if (ioctl(tun, TUNSETIFF, &r) != 0)
        fail(NOT_PERMITTED, "no TUN device may be made");
    bring_up(s, "lo", NULL);
    bring_up(s, "wan0", address);
    close(s);
    return tun;
}

static void send_fd(int control, int fd) {
    char byte = 'T';
    union {
        char bytes[CMSG_SPACE(sizeof fd)];
        struct cmsghdr align;
    } u = {0};
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = u.bytes, .msg_controllen = sizeof u.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    if (sendmsg(control, &m, 0) != 1)
        fail(EXIT_FAILURE, "sendmsg");
}

static int receive_fd(int control) {
    char byte;
    int fd = -1;
    union {
        char bytes[CMSG_SPACE(sizeof fd)];
        struct cmsghdr align;
    } u = {0};
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = u.bytes, .msg_controllen = sizeof u.bytes};
    if (recvmsg(control, &m, MSG_CMSG_CLOEXEC) == 1 && CMSG_FIRSTHDR(&m))
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
    return fd;
}

static _Noreturn void run_side(int control, const char *address, const char *command, bool own_group) {
    char byte;
    sigset_t none;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    leave_network();
    int tun = open_tun(address);
    send_fd(control, tun);
    if (read(control, &byte, 1) != 1) /* the other side could not be made */
        exit(NOT_PERMITTED);
    if (own_group)
        setpgid(0, 0);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    fail(127, "/bin/sh");
}

static struct side make_side(const char *address, const char *command, bool own_group) {
    int pair[2], status;
    struct side s;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0 || (s.pid = fork()) < 0)
        fail(EXIT_FAILURE, "fork");
    if (s.pid == 0) {
        close(pair[0]);
        run_side(pair[1], address, command, own_group);
    }
    close(pair[1]);
    s.control = pair[0];
    s.tun = receive_fd(s.control);
    if (s.tun < 0) { /* it has said why */
        waitpid(s.pid, &status, 0);
        exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILURE);
    }
    return s;
}

/* ---- between the namespaces ---- */

/* Takes all packets that the device has. */
static void take(struct way *w, int tun) {
    unsigned char bytes[MTU + 64];
    double bytes_per_ms = mbit * 125;
    for (ssize_t n; (n = read(tun, bytes, sizeof bytes)) > 0;) {
        double now = now_ms();
        double begin = fmax(w->free_ms, now);
        /* The queue before the bottleneck has room for one round trip and 64 KiB; what finds it full is lost. */
        bool full = mbit > 0 && (begin - now) * bytes_per_ms > rtt_ms * bytes_per_ms + (64 << 10);
        struct packet *p = full || drand48() * 100 < loss ? NULL : malloc(sizeof *p + (size_t)n);
        if (!p)
            continue;
        w->free_ms = begin + (mbit > 0 ? (double)n / bytes_per_ms : 0);
        *p = (struct packet){.release_ms = w->free_ms + rtt_ms / 2, .n = (size_t)n};
        memcpy(p->bytes, bytes, (size_t)n);
        *w->tail = p;
        w->tail = &p->next;
    }
}

static void give(struct way *w, int tun) {
    while (w->head && w->head->release_ms <= now_ms()) {
        struct packet *p = w->head;
        ssize_t n = write(tun, p->bytes, p->n); /* a device that refuses a packet has lost it, as networks do */
        (void)n;
        w->head = p->next;
        if (!w->head)
            w->tail = &w->head;
        free(p);
    }
}

static void drop(struct way *w) {
    for (struct packet *p = w->head, *next; p; p = next) {
        next = p->next;
        free(p);
    }
}

static void on_signal(int sig) {
    if (sig != SIGCHLD)
        asked_to_end = 1;
}

/* Carries packets until both commands have ended; returns the client's status. */
static int carry(struct side *server, struct side *client) {
    struct way up = {.tail = &up.head}, down = {.tail = &down.head};
    double asked_ms = 0;
    int status = 0, result = EXIT_FAILURE;
    sigset_t none;
    sigemptyset(&none);
    while (server->pid || client->pid) {
        struct pollfd polls[2] = {{.fd = server->tun, .events = POLLIN}, {.fd = client->tun, .events = POLLIN}};
        double next = now_ms() + MOST_WAIT_MS;
        if (up.head)
            next = fmin(next, up.head->release_ms);
        if (down.head)
            next = fmin(next, down.head->release_ms);
        struct timespec wait = {.tv_nsec = (long)(fmax(0, next - now_ms()) * 1e6)};
        ppoll(polls, 2, &wait, &none);
        take(&up, client->tun);
        take(&down, server->tun);
        give(&up, server->tun);
        give(&down, client->tun);
        for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
            if (pid == client->pid) {
                client->pid = 0;
                result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            } else if (pid == server->pid)
                server->pid = 0;
        }
        if (asked_to_end && client->pid)
            kill(client->pid, SIGTERM);
        asked_to_end = 0;
        if (!client->pid && server->pid && asked_ms == 0) {
            kill(-server->pid, SIGTERM);
            asked_ms = now_ms();
        }
        if (asked_ms > 0 && server->pid && now_ms() - asked_ms > PATIENCE_MS) {
            fprintf(stderr, "tun_wan: the server did not end\n");
            kill(-server->pid, SIGKILL);
            result = EXIT_FAILURE;
            asked_ms = INFINITY;
        }
    }
    drop(&up);
    drop(&down);
    return result;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"rtt", 1, NULL, 'r'},
                                            {"mbit", 1, NULL, 'm'},
                                            {"loss", 1, NULL, 'l'},
                                            {"seed", 1, NULL, 's'},
                                            {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "+", options, NULL)) != -1;) {
        if (c == 'r')
            rtt_ms = strtod(optarg, NULL);
        else if (c == 'm')
            mbit = strtod(optarg, NULL);
        else if (c == 'l')
            loss = strtod(optarg, NULL);
        else if (c == 's')
            srand48(strtol(optarg, NULL, 10));
        else
            argc = 0;
    }
    if (argc - optind != 2) {
        fprintf(stderr, "usage: tun_wan [--rtt MS] [--mbit N] [--loss PERCENT] [--seed N] SERVER CLIENT\n");
        return 2;
    }
    /* Signals are looked at while the loop waits and at no other time. */
    struct sigaction act = {.sa_handler = on_signal};
    sigset_t blocked;
    sigemptyset(&blocked);
    static const int signals[] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        sigaction(signals[i], &act, NULL);
        sigaddset(&blocked, signals[i]);
    }
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    prctl(PR_SET_TIMERSLACK, 1000UL);
    struct side server = make_side("10.77.0.1", argv[optind], true);
    struct side client = make_side("10.77.0.2", argv[optind + 1], false);
    if (write(server.control, "", 1) != 1 || write(client.control, "", 1) != 1)
        fail(EXIT_FAILURE, "the commands cannot be started");
    return carry(&server, &client);
}
