#include "gpu/nccl.h"
#include "test/unit/gpu_rig.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* The table's prototypes, with NVIDIA's names for our types, are those of the library's header, where there is one. */
#if __has_include(<nccl.h>)
#include <nccl.h>

_Static_assert(sizeof(nccl_result) == sizeof(ncclResult_t), "nccl_result");
_Static_assert(sizeof(nccl_type) == sizeof(ncclDataType_t), "nccl_type");
_Static_assert((int)NCCL_UINT8 == (int)ncclUint8, "NCCL_UINT8");
_Static_assert((int)NCCL_IN_PROGRESS == (int)ncclInProgress, "NCCL_IN_PROGRESS");
_Static_assert((int)ncclSuccess == 0, "ncclSuccess");
_Static_assert((int)NCCL_OLDEST == NCCL_VERSION(2, 19, 4), "NCCL_OLDEST");
#define nccl_result ncclResult_t
#define nccl_type   ncclDataType_t
#define SAME(result, name, field, params)                                                                              \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&name), result(*) params), #name);
NCCL_FUNCTIONS(SAME)
#undef nccl_result
#undef nccl_type

Test(gpu_nccl, prototypes_are_those_of_its_header) {
}
#else
Test(gpu_nccl, prototypes_are_those_of_its_header) {
    cr_skip_test("NVIDIA's nccl.h is not installed");
}
#endif

/* The library itself says its version without a card. */
Test(gpu_nccl, the_real_one_opens_where_it_is_installed) {
    struct err e = {0};
    char version[32];
    unsetenv("SPLITINF_LIBNCCL");
    const struct nccl *n = nccl_open(&e);
    if (!n)
        cr_skip_test("there is none here: %s", e.msg);
    cr_assert_eq(strncmp(nccl_version(n, version, sizeof version), "2.", 2), 0, "%s", version);
    cr_assert(n->error_string(0));
}

static void none(const char *library, const char *text) {
    struct err e = {0}, again = {0};
    setenv("SPLITINF_LIBNCCL", library, 1);
    cr_assert_null(nccl_open(&e));
    cr_assert_eq(e.kind, ERR_DEVICE);
    cr_assert(strstr(e.msg, text), "%s", e.msg);
    cr_assert_null(nccl_open(&again));
    cr_assert_str_eq(again.msg, e.msg);
}

Test(gpu_nccl, none_here) {
    none("/nowhere/libnccl.so.2", "which is not here: install it (libnccl2), or give each card layers of its own "
                                  "(--device 0,1): /nowhere/libnccl.so.2 cannot be opened");
}

Test(gpu_nccl, one_that_lacks_functions) {
    none("libm.so.6", "too old: libm.so.6 is version unknown and has no ncclGetVersion, and 2.19.4 or later is needed");
}

/* The name under which gpu_rig would open the emulated one. */
static const char *emulated(void) {
    gpu_rig_needs_emulated_card();
    gpu_rig_prepare(2, 0);
    return getenv("SPLITINF_LIBNCCL");
}

Test(gpu_nccl, one_that_is_too_old) {
    const char *library = emulated();
    setenv("EMU_NCCL_VERSION", "21903", 1);
    none(library, "is version 2.19.3, and 2.19.4 or later is needed");
}

Test(gpu_nccl, one_that_is_very_old) {
    const char *library = emulated();
    setenv("EMU_NCCL_VERSION", "2708", 1);
    none(library, "is version 2.7.8, and");
}

Test(gpu_nccl, is_opened_once_and_says_what_it_is) {
    struct err e = {0};
    char buf[100];
    (void)emulated();
    const struct nccl *n = nccl_open(&e);
    cr_assert(n, "%s", e.msg);
    cr_assert_eq(nccl_open(&e), n);
    cr_assert_str_eq(nccl_version(n, buf, sizeof buf), "2.28.9");
    cr_assert_str_eq(nccl_error(n, 5, buf, sizeof buf), "invalid usage");
}

/* What the emulated library is strict about, which tests of gathers rely on. */

static struct gpu *cards[2];
static nccl_comm comms[2];
static cu_ptr bufs[2];

static const struct nccl *two_cards(void) {
    struct err e = {0};
    (void)emulated();
    const struct nccl *n = nccl_open(&e);
    cr_assert(n, "%s", e.msg);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(gpu_open(&cards[i], i, &e), 0, "%s", e.msg);
        bufs[i] = gpu_rig_alloc(cards[i], 100);
    }
    cr_assert_eq(n->comm_init_all(comms, 2, (int[]){0, 1}), 0);
    return n;
}

static nccl_result gather(const struct nccl *n, int rank, size_t bytes) {
    gpu_enter(cards[rank]);
    return n->all_gather((const void *)(uintptr_t)(bufs[rank] + (size_t)rank * bytes), (void *)(uintptr_t)bufs[rank],
                         bytes, NCCL_UINT8, comms[rank], cards[rank]->stream);
}

static void close_both(const struct nccl *n) {
    for (int i = 0; i < 2; i++)
        cr_assert_eq(n->comm_destroy(comms[i]), 0);
    for (int i = 0; i < 2; i++) {
        gpu_enter(cards[i]);
        gpu_free(cards[i], bufs[i]);
        gpu_close(cards[i]);
    }
    cr_assert_eq(gpu_rig_leaks(), 0);
}

Test(emulated_nccl, one_thread_may_wait_for_all_that_is_enqueued) {
    const struct nccl *n = two_cards();
    static const char texts[2][10] = {"all was", "gathered"};
    char got[20] = "";
    for (int i = 0; i < 2; i++) {
        gpu_enter(cards[i]);
        gpu_rig_write(cards[i], bufs[i] + (size_t)i * 10, texts[i], 10);
    }
    cr_assert_eq(gather(n, 0, 10), 0);
    cr_assert_eq(gather(n, 1, 10), 0);
    gpu_rig_wait(cards[1]);
    gpu_enter(cards[0]);
    gpu_rig_read(cards[0], got, bufs[0], 20);
    cr_assert_arr_eq(got, texts, 20);
    cr_assert_eq(gather(n, 0, 10), 0); /* what nobody waits for is done before they are destroyed */
    cr_assert_eq(gather(n, 1, 10), 0);
    close_both(n);
}

Test(emulated_nccl, refuses_the_wrong_memory_card_and_type) {
    const struct nccl *n = two_cards();
    cr_assert_eq(gather(n, 0, 51), 4, "two blocks do not fit");
    gpu_enter(cards[0]);
    void *p = (void *)(uintptr_t)bufs[0], *q = (void *)(uintptr_t)bufs[1];
    cr_assert_eq(n->all_gather(q, p, 10, NCCL_UINT8, comms[0], cards[0]->stream), 4, "another card's memory");
    cr_assert_eq(n->all_gather(p, p, 10, 7, comms[0], cards[0]->stream), 4, "floats");
    cr_assert_eq(n->all_gather(p, p, 10, NCCL_UINT8, comms[0], cards[1]->stream), 5, "another card's stream");
    cr_assert_eq(n->all_gather(q, q, 10, NCCL_UINT8, comms[1], cards[1]->stream), 5, "another card's thread");
    cr_assert_eq(n->comm_init_all(comms, 2, (int[]){1, 1}), 5);
    cr_assert_eq(n->comm_init_all(comms, 2, (int[]){1, 2}), 1);
    close_both(n);
}

static void differ(size_t bytes, bool recorded) {
    const struct nccl *n = two_cards();
    struct err e = {0};
    cu_graph_exec x = NULL;
    gpu_enter(cards[0]);
    if (recorded)
        gpu_record_begin(cards[0]);
    cr_assert_eq(gather(n, 0, 10), 0);
    x = gpu_record_end(cards[0]);
    gpu_replay(cards[0], x);
    cr_assert_eq(gather(n, 1, bytes), 0);
    cr_assert_eq(gpu_wait(cards[1], &e), -1);
    cr_assert(strstr(e.msg, "CUDA_ERROR_LAUNCH_FAILED"), "%s", e.msg);
    gpu_enter(cards[0]);
    gpu_forget(cards[0], x);
    cr_assert_eq(gpu_wait(cards[0], NULL), -1);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(n->comm_destroy(comms[i]), 0);
}

Test(emulated_nccl, breaks_cards_that_gather_different_sizes) {
    differ(11, false);
}
Test(emulated_nccl, breaks_cards_of_which_one_has_recorded) {
    differ(10, true);
}

Test(emulated_nccl, ends_a_wait_for_what_never_comes, .signal = SIGABRT) {
    setenv("EMU_PATIENCE", "1", 1);
    const struct nccl *n = two_cards();
    cr_assert_eq(gather(n, 0, 10), 0);
    (void)gpu_wait(cards[0], NULL);
}

static void *abort_soon(void *arg) {
    const struct nccl *n = arg;
    for (int i = 0; i < 2; i++)
        cr_assert_eq(n->comm_abort(comms[i]), 0);
    return NULL;
}

Test(emulated_nccl, an_abort_frees_who_waits_and_leaves_garbage) {
    pthread_t t;
    const struct nccl *n = two_cards();
    char bytes[20];
    cr_assert_eq(gather(n, 0, 10), 0);
    cr_assert_eq(pthread_create(&t, NULL, abort_soon, (void *)(uintptr_t)n), 0);
    gpu_rig_wait(cards[0]);
    pthread_join(t, NULL);
    gpu_rig_read(cards[0], bytes, bufs[0], 20);
    cr_assert(bytes[0] == 0 && bytes[9] == 0 && bytes[10] != 0 && bytes[19] != 0);
    for (int i = 0; i < 2; i++) {
        gpu_enter(cards[i]);
        gpu_free(cards[i], bufs[i]);
        gpu_close(cards[i]);
    }
    cr_assert_eq(gpu_rig_leaks(), 0);
}

Test(emulated_nccl, the_last_abort_waits_for_recordings_to_be_forgotten, .signal = SIGABRT) {
    setenv("EMU_PATIENCE", "1", 1);
    const struct nccl *n = two_cards();
    gpu_enter(cards[0]);
    gpu_record_begin(cards[0]);
    cr_assert_eq(gather(n, 0, 10), 0);
    cr_assert(gpu_record_end(cards[0]));
    gpu_rig_wait(cards[0]);
    abort_soon((void *)(uintptr_t)n);
}

Test(emulated_nccl, does_not_survive_the_use_of_what_was_destroyed, .signal = SIGABRT) {
    const struct nccl *n = two_cards();
    abort_soon((void *)(uintptr_t)n);
    (void)gather(n, 0, 10);
}

Test(emulated_nccl, counts_what_is_never_destroyed) {
    (void)two_cards();
    for (int i = 0; i < 2; i++) {
        gpu_enter(cards[i]);
        gpu_free(cards[i], bufs[i]);
        gpu_close(cards[i]);
    }
    cr_assert_eq(gpu_rig_leaks(), 2);
}
