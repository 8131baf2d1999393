#include "net/cloud/peer.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <string.h>

static struct sockaddr_storage v4(const char *host, unsigned short port) {
    struct sockaddr_storage s = {0};
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    cr_assert_eq(inet_pton(AF_INET, host, &in.sin_addr), 1);
    memcpy(&s, &in, sizeof in);
    return s;
}

static struct sockaddr_storage v6(const char *host, unsigned short port) {
    struct sockaddr_storage s = {0};
    struct sockaddr_in6 in = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    cr_assert_eq(inet_pton(AF_INET6, host, &in.sin6_addr), 1);
    memcpy(&s, &in, sizeof in);
    return s;
}

static bool same(struct sockaddr_storage a, struct sockaddr_storage b) {
    struct peer_address x = peer_address((const struct sockaddr *)&a), y = peer_address((const struct sockaddr *)&b);
    return peer_address_equal(&x, &y);
}

static const char *name(struct sockaddr_storage a) {
    static char text[PEER_NAME];
    peer_name((const struct sockaddr *)&a, text);
    return text;
}

Test(peer, ports_do_not_count_and_hosts_do) {
    cr_assert(same(v4("192.0.2.1", 1), v4("192.0.2.1", 2)));
    cr_assert_not(same(v4("192.0.2.1", 1), v4("192.0.2.2", 1)));
}

Test(peer, an_ipv6_peer_is_its_network) {
    cr_assert(same(v6("2001:db8:1:2::1", 1), v6("2001:db8:1:2:ffff::9", 1)));
    cr_assert_not(same(v6("2001:db8:1:2::1", 1), v6("2001:db8:1:3::1", 1)));
}

Test(peer, a_mapped_address_is_the_ipv4_address) {
    cr_assert(same(v6("::ffff:192.0.2.1", 1), v4("192.0.2.1", 1)));
    cr_assert_not(same(v6("::ffff:192.0.2.1", 1), v6("::ffff:192.0.2.2", 1)));
    /* Its bytes at the front of an IPv6 address make no IPv4 address of it. */
    cr_assert_not(same(v6("c000:201::", 1), v4("192.0.2.1", 1)));
}

Test(peer, names) {
    cr_assert_str_eq(name(v4("192.0.2.1", 50000)), "192.0.2.1:50000");
    cr_assert_str_eq(name(v6("2001:db8::1", 65535)), "[2001:db8::1]:65535");
    cr_assert_str_eq(name((struct sockaddr_storage){.ss_family = AF_UNIX}), "unknown");
}
