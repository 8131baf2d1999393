#include "net/cloud/listen.h"

#include "net/client/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 256 };

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

/* Numbers only: a server need not ask anybody where it is. */
static socklen_t parse_host(union address *a, const char *host, uint16_t port) {
    *a = (union address){.in = {.sin_family = AF_INET, .sin_port = htons(port)}};
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (inet_pton(AF_INET, host, &a->in.sin_addr) == 1)
        return sizeof a->in;
    *a = (union address){.in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)}};
    return inet_pton(AF_INET6, host, &a->in6.sin6_addr) == 1 ? sizeof a->in6 : 0;
}

static int bound_port(int fd, uint16_t *port) {
    union address a = {.in6 = {0}};
    socklen_t n = sizeof a;
    if (getsockname(fd, &a.any, &n) != 0)
        return -1;
    *port = ntohs(a.any.sa_family == AF_INET6 ? a.in6.sin6_port : a.in.sin_port);
    return 0;
}

int listen_tcp(const char *address, uint16_t *port, struct err *e) {
    char host[ADDRESS_HOST];
    uint16_t wanted;
    union address a;
    int on = 1;
    if (!address_split(address, host, &wanted))
        return err_set(e, ERR_USAGE,
                       "'%.100s' is no address to listen on; write HOST:PORT, such as 0.0.0.0:7433 or "
                       "[::]:7433",
                       address);
    socklen_t n = parse_host(&a, host, wanted);
    if (n == 0)
        return err_set(e, ERR_USAGE,
                       "listening on %s: '%s' is no IP address of this machine; 0.0.0.0 means all of them", address,
                       host);
    int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 && bind(fd, &a.any, n) == 0 &&
        listen(fd, BACKLOG) == 0 && bound_port(fd, port) == 0)
        return fd;
    err_sys(e, errno, "listening on %s", address);
    if (fd >= 0)
        close(fd);
    return -1;
}
