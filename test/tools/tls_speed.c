/* tls_speed - what net/tls costs on this machine: handshakes, and bytes through one connection, both ends on one core.
 *
 *   make build/test/tools/tls_speed && build/test/tools/tls_speed [MIB]
 */
#include "core/base/clock.h"
#include "net/tls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct side {
    struct tls_config *config;
    struct identity *id;
    struct tls *t;
    int fd;
};

static bool everybody(void *ctx, const struct pin *pin) {
    (void)ctx;
    (void)pin;
    return true;
}

static double cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static int die(const struct err *e) {
    fprintf(stderr, "tls_speed: %s\n", e->msg);
    exit(EXIT_FAILURE);
}

static void hang_up(struct side s[2]) {
    for (int i = 0; i < 2; i++) {
        tls_free(s[i].t);
        close(s[i].fd);
    }
}

static void shake(struct side s[2]) {
    struct err e = {0};
    int fd[2];
    enum tls_status st[2] = {TLS_WANT_READ, TLS_WANT_READ};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) != 0)
        exit(EXIT_FAILURE);
    for (int i = 0; i < 2; i++) {
        s[i].fd = fd[i];
        if (tls_create(&s[i].t, s[i].config, fd[i], everybody, NULL, &e) != 0)
            die(&e);
    }
    while (st[0] != TLS_DONE || st[1] != TLS_DONE)
        for (int i = 0; i < 2; i++)
            if ((st[i] = tls_handshake(s[i].t, &e)) == TLS_FAILED)
                die(&e);
}

/* Sends n bytes in messages of the given size; each is read before the next goes out. */
static void send_all(struct side s[2], size_t n, size_t message) {
    static unsigned char out[65536], in[65536];
    struct err e = {0};
    for (size_t done = 0; done < n; done += message) {
        size_t sent = 0, got = 0, k;
        while (got < message) {
            if (sent < message) {
                enum tls_status st = tls_write(s[0].t, out + sent, message - sent, &k, &e);
                if (st == TLS_FAILED)
                    die(&e);
                if (st == TLS_DONE)
                    sent += k;
            }
            enum tls_status st = tls_read(s[1].t, in, sizeof in, &k, &e);
            if (st == TLS_FAILED)
                die(&e);
            if (st == TLS_DONE)
                got += k;
        }
    }
}

int main(int argc, char **argv) {
    static const size_t messages[] = {1024, 8192, 16384, 65536};
    size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 256;
    enum { HANDSHAKES = 100 };
    struct side s[2] = {0};
    struct err e = {0};
    for (int i = 0; i < 2; i++)
        if (identity_ephemeral(&s[i].id, &e) != 0 || tls_config_create(&s[i].config, i == 1, s[i].id, &e) != 0)
            die(&e);
    shake(s);
    hang_up(s);
    double t0 = cpu_ms();
    for (int i = 0; i < HANDSHAKES; i++) {
        shake(s);
        if (i + 1 < HANDSHAKES)
            hang_up(s);
    }
    printf("handshake, both ends: %.2f ms of CPU (%s)\n", (cpu_ms() - t0) / HANDSHAKES, tls_suite(s[0].t));
    for (size_t k = 0; k < sizeof messages / sizeof *messages; k++) {
        double cpu = cpu_ms(), wall = clock_ms();
        send_all(s, mib << 20, messages[k]);
        cpu = cpu_ms() - cpu;
        wall = clock_ms() - wall;
        printf("messages of %5zu bytes: %6.0f MiB per second of CPU, both ends (%.1f us a message; wall %.0f MiB/s)\n",
               messages[k], (double)mib / cpu * 1e3, cpu * 1e3 / (double)((mib << 20) / messages[k]),
               (double)mib / wall * 1e3);
    }
    hang_up(s);
    for (int i = 0; i < 2; i++) {
        tls_config_free(s[i].config);
        identity_free(s[i].id);
    }
    return EXIT_SUCCESS;
}
