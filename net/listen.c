#include "net/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 256 };

/* Cuts "HOST:PORT" in two; brackets around an IPv6 address are taken off. */
static int split(const char *address, char *host, size_t cap, char port[6], struct err *e) {
    const char *colon = strrchr(address, ':'), *at = address;
    size_t n = colon ? (size_t)(colon - address) : 0, digits = colon ? strspn(colon + 1, "0123456789") : 0;
    bool brackets = n >= 2 && address[0] == '[' && address[n - 1] == ']';
    if (brackets) {
        at++;
        n -= 2;
    }
    if (n == 0 || n >= cap || (!brackets && memchr(at, ':', n)) || digits == 0 || digits > 5 || colon[1 + digits] ||
        strtoul(colon + 1, NULL, 10) > UINT16_MAX)
        return err_set(e, ERR_USAGE,
                       "'%.100s' is no address to listen on; write HOST:PORT, such as 0.0.0.0:7433 or "
                       "[::]:7433",
                       address);
    memcpy(host, at, n);
    host[n] = '\0';
    memcpy(port, colon + 1, digits + 1);
    return 0;
}

static int bind_one(const struct addrinfo *a) {
    int on = 1, fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 && bind(fd, a->ai_addr, a->ai_addrlen) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

int listen_tcp(const char *address, uint16_t *port, struct err *e) {
    char host[256], service[6];
    struct addrinfo *list = NULL, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct sockaddr_storage sa;
    socklen_t n = sizeof sa;
    int fd = -1;
    if (split(address, host, sizeof host, service, e) != 0)
        return -1;
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc != 0)
        return err_set(e, ERR_USAGE, "listening on %s: %s", address, gai_strerror(rc));
    for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
        fd = bind_one(a);
    int saved = errno;
    freeaddrinfo(list);
    if (fd < 0)
        return err_sys(e, saved, "listening on %s", address);
    if (getsockname(fd, (struct sockaddr *)&sa, &n) != 0) {
        err_sys(e, errno, "listening on %s", address);
        close(fd);
        return -1;
    }
    *port = ntohs(sa.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&sa)->sin6_port
                                           : ((struct sockaddr_in *)&sa)->sin_port);
    return fd;
}
