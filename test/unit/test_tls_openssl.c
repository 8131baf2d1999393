/* net/tls with OpenSSL's command line tool at the other end, which reads our key files: another implementation of TLS
 * that understands the same. */
#include "net/tls.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char home[64], command[600];
static struct identity *ours, *theirs;

static void set_up(void) {
    struct err e = {0};
    strcpy(home, "/tmp/splitinf-openssl-XXXXXX");
    cr_assert_not_null(mkdtemp(home));
    cr_assert_eq(identity_open(&theirs, home, &e), 0, "%s", e.msg);
    cr_assert_eq(identity_ephemeral(&ours, &e), 0, "%s", e.msg);
}

static void take_down(void) {
    identity_free(ours);
    identity_free(theirs);
    snprintf(command, sizeof command, "rm -rf %s", home);
    cr_assert_eq(system(command), 0);
}

TestSuite(openssl, .init = set_up, .fini = take_down);

static void need_openssl(void) {
    /* OpenSSL 3 says which port it took when it was told to take a free one. */
    if (system("openssl version 2>/dev/null | grep -q '^OpenSSL 3'") != 0)
        cr_skip_test("there is no openssl 3");
}

static bool is_theirs(void *ctx, const struct pin *pin) {
    (void)ctx;
    return pin_equal(pin, identity_pin(theirs));
}

/* True when the call is to be repeated. */
static bool again(int fd, enum tls_status st) {
    struct pollfd p = {.fd = fd, .events = st == TLS_WANT_READ ? POLLIN : POLLOUT};
    if (st != TLS_WANT_READ && st != TLS_WANT_WRITE)
        return false;
    cr_assert_eq(poll(&p, 1, 60000), 1, "openssl says nothing");
    return true;
}

/* Says "hello\n" and expects an answer of as many bytes. */
static void talk(bool server, int fd, const char *expected) {
    struct tls_config *c;
    struct tls *t;
    struct err e = {0};
    enum tls_status st;
    char got[16] = "";
    size_t n = 0, have = 0;
    cr_assert_eq(tls_config_create(&c, server, ours, &e), 0, "%s", e.msg);
    cr_assert_eq(tls_create(&t, c, fd, is_theirs, NULL, &e), 0, "%s", e.msg);
    while (again(fd, st = tls_handshake(t, &e)))
        continue;
    cr_assert_eq(st, TLS_DONE, "%s", e.msg);
    while (again(fd, st = tls_write(t, "hello\n", 6, &n, &e)))
        continue;
    cr_assert(st == TLS_DONE && n == 6, "%s", e.msg);
    while (have < 6) {
        while (again(fd, st = tls_read(t, got + have, sizeof got - 1 - have, &n, &e)))
            continue;
        cr_assert_eq(st, TLS_DONE, "%s", e.msg);
        have += n;
    }
    cr_assert_str_eq(got, expected);
    tls_close_notify(t);
    tls_free(t);
    tls_config_free(c);
}

static int local_socket(struct sockaddr_in *a) {
    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    return fd;
}

Test(openssl, as_the_client) {
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    char line[64] = "";
    need_openssl();
    int listener = local_socket(&a);
    cr_assert(bind(listener, (struct sockaddr *)&a, sizeof a) == 0 && listen(listener, 1) == 0 &&
              getsockname(listener, (struct sockaddr *)&a, &len) == 0);
    snprintf(
        command, sizeof command,
        "echo olleh | openssl s_client -quiet -connect 127.0.0.1:%d -tls1_3 -alpn splitinf/1 -cert %s/cert.pem -key "
        "%s/key.pem 2>/dev/null",
        ntohs(a.sin_port), home, home);
    FILE *f = popen(command, "r");
    cr_assert_not_null(f);
    struct pollfd p = {.fd = listener, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, 60000), 1, "openssl does not come");
    int fd = accept(listener, NULL, NULL);
    cr_assert_geq(fd, 0);
    talk(true, fd, "olleh\n");
    close(fd);
    cr_assert(fgets(line, sizeof line, f) && strcmp(line, "hello\n") == 0, "openssl got '%s'", line);
    pclose(f);
    close(listener);
}

Test(openssl, as_the_server) {
    struct sockaddr_in a;
    char line[256];
    int port = 0;
    need_openssl();
    snprintf(command, sizeof command,
             "openssl s_server -accept 127.0.0.1:0 -naccept 1 -rev -tls1_3 -alpn splitinf/1 -Verify 1 -cert "
             "%s/cert.pem -key "
             "%s/key.pem 2>/dev/null </dev/null",
             home, home);
    FILE *f = popen(command, "r");
    cr_assert_not_null(f);
    while (port == 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "ACCEPT 127.0.0.1:%d", &port) != 1)
            port = 0;
    cr_assert_neq(port, 0, "openssl named no port");
    int fd = local_socket(&a);
    a.sin_port = htons((uint16_t)port);
    cr_assert_eq(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    talk(false, fd, "olleh\n");
    close(fd);
    while (fgets(line, sizeof line, f))
        continue;
    pclose(f);
}
