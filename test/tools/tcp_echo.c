/* test/tools/tcp_echo.c - measures a network with the kernel's TCP.
 *
 *   tcp_echo PORT                       sends back what it gets; one connection after the other, on all addresses
 *   tcp_echo HOST PORT COUNT BYTES      connects (waiting for the server if need be), sends BYTES and gets them back
 * COUNT times, and prints in ms: "connect MS echo MS", of the echoes the best */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static struct sockaddr_in address(const char *host, const char *port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    if (host && inet_pton(AF_INET, host, &a.sin_addr) != 1) {
        fprintf(stderr, "%s is no address\n", host);
        exit(2);
    }
    return a;
}

static int serve(const char *port) {
    struct sockaddr_in a = address(NULL, port);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    static char bytes[1 << 16];
    if (bind(listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(listener, 8) != 0) {
        perror("listen");
        return EXIT_FAILURE;
    }
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        no_delay(fd);
        for (ssize_t n; (n = recv(fd, bytes, sizeof bytes, 0)) > 0;)
            if (send(fd, bytes, (size_t)n, MSG_NOSIGNAL) != n)
                break;
        close(fd);
    }
}

static int echo(int fd, size_t n) {
    static char bytes[1 << 16];
    for (size_t sent = 0, got = 0; got < n;) {
        struct pollfd p = {.fd = fd, .events = (short)(POLLIN | (sent < n ? POLLOUT : 0))};
        if (poll(&p, 1, 30000) != 1)
            return -1;
        if (p.revents & POLLOUT) {
            size_t len = n - sent < sizeof bytes ? n - sent : sizeof bytes;
            ssize_t k = send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += k > 0 ? (size_t)k : 0;
        }
        if (p.revents & ~POLLOUT) {
            ssize_t k = recv(fd, bytes, sizeof bytes, 0);
            if (k <= 0)
                return -1;
            got += (size_t)k;
        }
    }
    return 0;
}

static int measure(const char *host, const char *port, int count, size_t n) {
    struct sockaddr_in a = address(host, port);
    double begin = now_ms(), start, connected, best = 1e18;
    int fd;
    for (;;) {
        start = now_ms();
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
            break;
        close(fd);
        if (now_ms() - begin > 20000) {
            perror("connect");
            return EXIT_FAILURE;
        }
        poll(NULL, 0, 20);
    }
    connected = now_ms() - start;
    no_delay(fd);
    for (int i = 0; i < count; i++) {
        start = now_ms();
        if (echo(fd, n) != 0) {
            fprintf(stderr, "the connection broke\n");
            return EXIT_FAILURE;
        }
        if (now_ms() - start < best)
            best = now_ms() - start;
    }
    printf("connect %.2f echo %.2f\n", connected, best);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
    if (argc == 2)
        return serve(argv[1]);
    if (argc == 5)
        return measure(argv[1], argv[2], atoi(argv[3]), (size_t)atol(argv[4]));
    fprintf(stderr, "usage: tcp_echo PORT | tcp_echo HOST PORT COUNT BYTES\n");
    return 2;
}
