/* net/wire: what a person gets to read - the text of an ERROR, and what wire_match says about two HELLOs. */
#include "net/wire.h"

#include <criterion/criterion.h>
#include <string.h>

static void check_text(const char *sent, const char *want) {
    struct wbuf w = {0};
    struct err e = {0};
    int code = -1;
    char text[WIRE_MAX_TEXT + 1];
    wire_put_error(&w, WIRE_E_FULL, sent);
    cr_assert_eq(wire_get_error(w.p + WIRE_HEAD, w.n - WIRE_HEAD, &code, text, &e), 0);
    cr_assert_eq(code, WIRE_E_FULL);
    cr_assert_str_eq(text, want);
    wbuf_free(&w);
}

Test(wire, text_of_an_error_can_go_to_a_terminal) {
    check_text("", "");
    check_text("full: 3 \xe2\x82\xac, \xc3\xa4, \xf0\x9f\x90\x88", "full: 3 \xe2\x82\xac, \xc3\xa4, \xf0\x9f\x90\x88");
    check_text("a\033[2Jb\nc\td\177e\r", "a?[2Jb?c?d?e?");
    check_text("\xc2\x9b"
               "31m\xc2\xa0",
               "?31m\xc2\xa0");                                     /* a C1 control, and what is just beyond */
    check_text("\x80 \xff \xc0\xaf \xe0\x80\xaf", "? ? ?? ???");    /* stray, overlong */
    check_text("\xed\xa0\x80 \xf4\x90\x80\x80 \xf8", "??? ???? ?"); /* a surrogate, beyond Unicode */
    check_text("\xe2\x82", "??");                                   /* cut */
    check_text("\xe2\x82 x\xf0\x9f\x90", "?? x???");
    uint8_t nul[] = {7, 0, 3, 0, 'a', 0, 'b'};
    struct err e = {0};
    int code;
    char text[WIRE_MAX_TEXT + 1];
    cr_assert_eq(wire_get_error(nul, sizeof nul, &code, text, &e), 0);
    cr_assert_str_eq(text, "a?b");
    nul[0] = 200; /* a code of a later version */
    cr_assert_eq(wire_get_error(nul, sizeof nul, &code, text, &e), 0);
    cr_assert_eq(code, WIRE_E_FAILED);
}

Test(wire, text_of_an_error_is_cut_between_characters) {
    char longer[600], want[600];
    memset(longer, 'x', sizeof longer);
    longer[599] = '\0';
    memcpy(want, longer, sizeof want);
    want[WIRE_MAX_TEXT] = '\0';
    check_text(longer, want);
    memcpy(longer + WIRE_MAX_TEXT - 2, "\xe2\x82\xac", 3);
    want[WIRE_MAX_TEXT - 2] = '\0';
    check_text(longer, want);
    memcpy(longer + WIRE_MAX_TEXT - 3, "\xe2\x82\xac", 4); /* fits, to the byte */
    memcpy(want, longer, sizeof want);
    check_text(longer, want);

    static uint8_t p[4 + WIRE_MAX_TEXT + 1] = {1, 0, 481 & 255, 481 >> 8};
    struct err e = {0};
    int code;
    char text[WIRE_MAX_TEXT + 1];
    cr_assert_eq(wire_get_error(p, sizeof p, &code, text, &e), -1);
}

static struct wire_hello a_hello(void) {
    struct wire_hello h = {.version = 1, .codec = CODEC_F16, .kv = 1, .quant = 2};
    h.n_layers = 32;
    h.lo = 2;
    h.hi = 30;
    h.hidden = 0x01020304;
    for (int i = 0; i < WIRE_DIGEST; i++) {
        h.config[i] = (uint8_t)(0xa0 + i);
        h.weights[i] = (uint8_t)(0x40 + i);
    }
    h.ctx = 8192;
    h.live = 300;
    memcpy(h.token, "0123456789abcdef", WIRE_TOKEN);
    return h;
}

static void check_match(const struct wire_hello *got, int code, const char *one, const char *two, const char *advice) {
    struct wire_hello mine = a_hello();
    char text[WIRE_MAX_TEXT + 1];
    cr_assert_eq(wire_match(&mine, got, text), code);
    cr_assert(strstr(text, one), "no \"%s\" in: %s", one, text);
    cr_assert(strstr(text, two), "no \"%s\" in: %s", two, text);
    cr_assert(strstr(text, advice), "no \"%s\" in: %s", advice, text);
}

Test(wire, match_names_the_first_difference) {
    struct wire_hello h = a_hello(), mine = a_hello();
    char text[WIRE_MAX_TEXT + 1];
    cr_assert_eq(wire_match(&mine, &h, text), 0);
    cr_assert_str_eq(text, "");
    memset(h.weights, 0, WIRE_DIGEST); /* the client does not have them */
    h.codec = CODEC_Q8;                /* any that exists */
    h.ctx = h.live = 1;
    memset(h.token, 0, WIRE_TOKEN);
    cr_assert_eq(wire_match(&mine, &h, text), 0);

    /* From the last field to the first: each later difference is behind an earlier one. */
    h.weights[31] = 1;
    check_match(&h, WIRE_E_WEIGHTS, "40414243", "00000000", "same model files");
    h.config[0] = 0x0f;
    check_match(&h, WIRE_E_MODEL, "a0a1a2a3", "0fa1a2a3", "same model files");
    h.hidden = 5120;
    check_match(&h, WIRE_E_MODEL, "16909060", "5120", "same model");
    h.hi = 31;
    check_match(&h, WIRE_E_SPLIT, "--front 2 --back 2", "--front 2 --back 1", "same --front and --back");
    h.lo = 4;
    check_match(&h, WIRE_E_SPLIT, "2 to 30", "4 to 31", "same --front and --back");
    h.hi = 40;
    check_match(&h, WIRE_E_SPLIT, "4 to 40", "of 32", "no sense");
    h.n_layers = 40;
    check_match(&h, WIRE_E_MODEL, "32 layers", "40", "same model");
    h.quant = 0;
    check_match(&h, WIRE_E_WEIGHTS, "q4 on the cloud", "none wanted", "--quant");
    h.quant = 77;
    check_match(&h, WIRE_E_WEIGHTS, "q4 on the cloud", "unknown", "--quant");
    h.kv = 0;
    check_match(&h, WIRE_E_CODEC, "f32 on the cloud", "f16 wanted", "--kv");
    h.kv = 2;
    check_match(&h, WIRE_E_CODEC, "f32 on the cloud", "fp8 wanted", "--kv");
    h.codec = N_CODECS;
    check_match(&h, WIRE_E_CODEC, "f32, f16, bf16 and q8", "number 4", "codec");
    h.version = 3;
    check_match(&h, WIRE_E_VERSION, "version 1", "version 3", "update");
}
