/* net/remote_middle against real clouds over links that break: the text is that of an undisturbed run. */
#include "core/base/clock.h"
#include "test/unit/remote_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static void same_text(struct remote_rig *r, const uint32_t *want) {
    uint32_t got[TOY_SAID];
    toy_converse(r->session, 0.8, got);
    cr_assert_arr_eq(got, want, sizeof got);
}

/* What is said without any trouble, and bytes each way behind the connection's start. */
static void undisturbed(struct remote_rig *r, uint32_t *said, uint64_t *up, uint64_t *down) {
    remote_rig_connect(r);
    struct link_stats before = link_stats(r->link[0]);
    toy_converse(r->session, 0.8, said);
    struct link_stats after = link_stats(r->link[0]);
    *up = after.up - before.up;
    *down = after.down - before.down;
    cr_assert_eq(session_stats(r->session)->recoveries, 0);
    cr_assert_eq(r->events[REMOTE_CONNECTED], 1);
    cr_assert_eq(r->events[REMOTE_LOST], 0);
    struct remote_info info;
    remote_middle_info(r->middle, &info);
    cr_assert_eq(info.connections, 1);
    cr_assert_str_eq(info.backend, "toy");
    cr_assert_str_eq(info.address, r->address[0]);
    remote_rig_disconnect(r);
}

Test(remote, a_conversation) {
    struct remote_rig r;
    uint32_t said[TOY_SAID];
    uint64_t up, down;
    remote_rig_init(&r);
    undisturbed(&r, said, &up, &down);
    cr_assert_gt(up, 2000);
    remote_rig_free(&r);
}

/* The connection is cut behind any number of bytes in either direction. */
static void cut_at_many_places(bool up_way) {
    struct remote_rig r;
    uint32_t said[TOY_SAID];
    uint64_t up, down;
    remote_rig_init(&r);
    undisturbed(&r, said, &up, &down);
    uint64_t all = up_way ? up : down, lost = 0;
    for (uint64_t at = 1; at < all; at += all / 60) {
        remote_rig_connect(&r);
        link_cut_after(r.link[0], up_way, at);
        same_text(&r, said);
        lost += session_stats(r.session)->recoveries;
        link_cut_after(r.link[0], up_way, 0);
        remote_rig_disconnect(&r);
    }
    cr_assert_geq(lost, 50, "%lu", (unsigned long)lost);
    remote_rig_free(&r);
}

Test(remote, cut_on_the_way_up) {
    cut_at_many_places(true);
}

Test(remote, cut_on_the_way_down) {
    cut_at_many_places(false);
}
