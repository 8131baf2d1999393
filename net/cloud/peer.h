/* net/cloud/peer.h - who a peer is before it has said anything: an address to count by, and a name for the log. Pure.
 */
#ifndef NET_CLOUD_PEER_H
#define NET_CLOUD_PEER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* An IPv4 address, or the /64 of an IPv6 one: what one who pays for one connection has at least. An IPv4 address mapped
 * into IPv6 is the IPv4 address. */
struct peer_address {
    uint8_t b[9];
};
struct peer_address peer_address(const struct sockaddr *sa);
bool peer_address_equal(const struct peer_address *a, const struct peer_address *b);

/* "192.0.2.1:50000", "[2001:db8::1]:50000". */
enum { PEER_NAME = INET6_ADDRSTRLEN + 16 };
void peer_name(const struct sockaddr *sa, char out[PEER_NAME]);

#endif
