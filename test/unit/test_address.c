/* "HOST:PORT" as people write it, and connecting to it. */
#include "core/base/clock.h"
#include "net/client/address.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

Test(address, taken_apart) {
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {{"gpu.example.org:7433", "gpu.example.org", 7433},
                {"127.0.0.1:1", "127.0.0.1", 1},
                {"[2001:db8::1]:65535", "2001:db8::1", 65535},
                {"[::1]:080", "::1", 80},
                {"[host]:7", "host", 7}};
    static const char *const bad[] = {"",           ":",       "host",    "host:",     ":7433",
                                      "host:65536", "host:x",  "host:7x", "host:-1",   "host: 7",
                                      "::1:7433",   "[]:7433", "[::1]",   "[::1]7433", "host:000007"};
    char host[ADDRESS_HOST], long_one[ADDRESS_HOST + 8];
    uint16_t port;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct err e = {0};
        cr_assert_eq(address_parse(good[i].text, host, &port, &e), 0, "%s", e.msg);
        cr_assert_str_eq(host, good[i].host);
        cr_assert_eq(port, good[i].port);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        cr_assert_not(address_split(bad[i], host, &port), "%s", bad[i]);
        cr_assert_eq(address_parse(bad[i], host, &port, &e), -1);
        cr_assert_eq(e.kind, ERR_USAGE);
    }
    for (size_t n = ADDRESS_HOST - 1; n <= ADDRESS_HOST; n++) {
        memset(long_one, 'a', n);
        strcpy(long_one + n, ":1");
        cr_assert_eq(address_split(long_one, host, &port), n < ADDRESS_HOST);
    }
    struct err e = {0};
    cr_assert(address_split("0.0.0.0:0", host, &port) && port == 0, "one can listen there,");
    cr_assert_eq(address_parse("0.0.0.0:0", host, &port, &e), -1, "and not connect");
}

static void connects(int family, const char *format) {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } a = {.in6 = {.sin6_family = (sa_family_t)family, .sin6_addr = IN6ADDR_LOOPBACK_INIT}};
    if (family == AF_INET)
        a.in = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = family == AF_INET ? sizeof a.in : sizeof a.in6;
    int listener = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char text[80];
    struct err e = {0};
    const struct address_wait w = {.until = clock_ms() + 20000};
    if (listener < 0 || bind(listener, &a.any, n) != 0 || listen(listener, 1) != 0) { /* a machine without IPv6 */
        cr_assert_eq(family, AF_INET6);
        return;
    }
    cr_assert_eq(getsockname(listener, &a.any, &n), 0);
    snprintf(text, sizeof text, format, ntohs(family == AF_INET ? a.in.sin_port : a.in6.sin6_port));
    int fd = address_connect(text, &w, &e);
    cr_assert_geq(fd, 0, "%s", e.msg);
    close(fd);
    close(listener);
    cr_assert_eq(address_connect(text, &w, &e), -1);
    cr_assert_eq(e.kind, ERR_IO);
    cr_assert(strstr(e.msg, text), "%s", e.msg);
}

Test(address, connected_to) {
    connects(AF_INET, "127.0.0.1:%u");
    connects(AF_INET6, "[::1]:%u");
}
