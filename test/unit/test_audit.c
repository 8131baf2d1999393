#include "net/audit.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the tree: values of test/oracle/make_merkle.py (Python's hashlib over the rule of docs/protocol.md) ---- */

static void activations(uint32_t i, float *x, size_t n) {
    for (size_t j = 0; j < n; j++) {
        float v = (float)((i * 31 + j * 7) % 257) - 128;
        x[j] = i % 2 ? v / 8 : v;
    }
}

static const char *hex(const uint8_t d[WIRE_DIGEST]) {
    static char s[2 * WIRE_DIGEST + 1];
    for (int i = 0; i < WIRE_DIGEST; i++)
        snprintf(s + 2 * i, 3, "%02x", d[i]);
    return s;
}

Test(audit, leaves_are_the_oracle_s) {
    static const struct {
        uint32_t i;
        size_t n;
        const char *want;
    } cases[] = {
        {0, 0, "8855508aade16ec573d21e6a485dfd0a7624085c1a14b5ecdd6485de0c6839a4"},
        {0, 12, "f6c5c95d438efa24c8335b4f19728454ed66c3c7f5441575563cc5a14f5cc17d"},
        {1, 12, "2793654db98e2cc3d9c713385868fc696ba6e631f6c39e7ad81b70698bd8940d"},
        {258, 1000, "46c9bbed4465351cbf5b9f1e58357e50f6db756101a1ea855be43151a257c48c"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct err e = {0};
        uint8_t leaf[WIRE_DIGEST];
        float x[1000];
        activations(cases[k].i, x, cases[k].n);
        cr_assert_eq(audit_leaf(cases[k].i, x, cases[k].n, leaf, &e), 0, "%s", e.msg);
        cr_assert_str_eq(hex(leaf), cases[k].want);
    }
}

Test(audit, roots_are_the_oracle_s) {
    static const struct {
        int n;
        const char *want;
    } cases[] = {
        {1, "f6c5c95d438efa24c8335b4f19728454ed66c3c7f5441575563cc5a14f5cc17d"},
        {2, "079d6e8cfd178620a4903f72cd76df15712e5aa6d036bfc2bed461142d0202cf"},
        {3, "b486415948b6bd249d656f140c68206ba7c7fcb0360c403623ea118fc6fe1cd6"},
        {4, "08f13873e9d734ee1fdc8048970307d598585ac29fe7d7af61361433c28e2e41"},
        {5, "c986dc4e592a6d7405423f213ecce3ccafd702c1a0da171af9040d0e303b87e3"},
        {6, "c8be2e995106e29d893eba3c7cda9df8c6b52a573dd8d6884c3de81dfbccb860"},
        {7, "a04e19b16b0ae77a4cacd6a72f91e12437cf7bcfdf892488b88a9d6bd270271a"},
        {11, "d133b51a30cca8fc30e8fcd04b5e25fb3ee43af7f747502588f3b00829097c92"},
        {33, "faaaeba9bfb50c5d370b57f427ed23bf5b9dbd4e3dda201640220182f9b158c4"},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct err e = {0};
        uint8_t leaves[40][WIRE_DIGEST], root[WIRE_DIGEST];
        for (int i = 0; i < cases[k].n; i++) {
            float x[12];
            activations((uint32_t)i, x, 12);
            cr_assert_eq(audit_leaf((uint32_t)i, x, 12, leaves[i], &e), 0, "%s", e.msg);
        }
        cr_assert_eq(audit_root(leaves, cases[k].n, root, &e), 0, "%s", e.msg);
        cr_assert_str_eq(hex(root), cases[k].want);
    }
    struct err e = {0};
    uint8_t none[1][WIRE_DIGEST], root[WIRE_DIGEST];
    cr_assert_eq(audit_root(none, 0, root, &e), -1);
    cr_assert_eq(e.kind, ERR_USAGE);
}
