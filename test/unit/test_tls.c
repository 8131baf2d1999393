/* net/tls: real handshakes, good and bad, with both ends in one thread. */
#include "net/tls.h"
#include "test/unit/tls_rig.h"

#include <criterion/criterion.h>
#include <string.h>

Test(tls, two_machines_that_know_each_other) {
    struct tls_rig r;
    tls_rig_open(&r);
    tls_rig_handshake(&r);
    cr_assert_eq(r.client.status, TLS_DONE, "%s", r.client.e.msg);
    cr_assert_eq(r.server.status, TLS_DONE, "%s", r.server.e.msg);
    cr_assert_eq(r.client.asked, 1);
    cr_assert_eq(r.server.asked, 1);
    cr_assert(pin_equal(tls_peer_pin(r.client.t), identity_pin(r.server.id)));
    cr_assert(pin_equal(tls_peer_pin(r.server.t), identity_pin(r.client.id)));
    cr_assert_str_eq(tls_suite(r.client.t), tls_suite(r.server.t));
    tls_rig_close(&r);
}
