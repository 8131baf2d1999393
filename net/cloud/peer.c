#include "net/cloud/peer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

struct peer_address peer_address(const struct sockaddr *sa) {
    struct peer_address a = {{0}};
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
        a.b[0] = 4;
        memcpy(a.b + 1, &in->sin_addr, 4);
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)sa;
        bool mapped = IN6_IS_ADDR_V4MAPPED(&in->sin6_addr);
        a.b[0] = mapped ? 4 : 6;
        memcpy(a.b + 1, in->sin6_addr.s6_addr + (mapped ? 12 : 0), mapped ? 4 : 8);
    }
    return a;
}

bool peer_address_equal(const struct peer_address *a, const struct peer_address *b) {
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

void peer_name(const struct sockaddr *sa, char out[PEER_NAME]) {
    char host[INET6_ADDRSTRLEN] = "";
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        snprintf(out, PEER_NAME, "%s:%u", host, ntohs(in->sin_port));
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const struct sockaddr_in6 *)sa;
        inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof host);
        snprintf(out, PEER_NAME, "[%s]:%u", host, ntohs(in->sin6_port));
    } else {
        snprintf(out, PEER_NAME, "unknown");
    }
}
