/* cmd: option tables, suggestions, help, stop strings, lines into messages, memory limits. */
#include "cmd/chat/line_join.h"
#include "cmd/engine/memory.h"
#include "cmd/engine/stop.h"
#include "cmd/help.h"
#include "cmd/options.h"
#include "cmd/suggest.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct inner {
    double temperature;
    int choice;
};
struct values {
    bool flag;
    int count;
    uint64_t seed, bytes;
    const char *text;
    struct strings list;
    struct inner inner;
};

#define AT(field) .offset = offsetof(struct values, field)
static const char *const colours[] = {"red", "green", "blue", NULL};
static const struct opt outer_options[] = {
    {"flag", NULL, "a flag", OPT_FLAG, AT(flag)},
    {"count", "N", "a count", OPT_INT, AT(count), .def = "7", .min = -5, .max = 100},
    {"seed", "N", "a seed", OPT_U64, AT(seed)},
    {"bytes", "BYTES", "a size", OPT_BYTES, AT(bytes), .def = "1K"},
    {"text", "TEXT", "a text", OPT_STRING, AT(text)},
    {"list", "TEXT", "texts", OPT_STRINGS, AT(list)},
    {0},
};
static const struct opt inner_options[] = {
    {"temperature", "T", "a number", OPT_FLOAT, .offset = offsetof(struct inner, temperature), .def = "0.5", .max = 2},
    {"two-words", "C", "a colour", OPT_CHOICE, .offset = offsetof(struct inner, choice), .choices = colours},
    {0},
};
static const struct opt_group groups[] = {{"Outer", outer_options, 0},
                                          {"Inner", inner_options, offsetof(struct values, inner)}};
static const char *const synopsis[] = {"test [OPTION]...", "test --again", NULL};
static const struct opt_table table = {.command = "test",
                                       .synopsis = synopsis,
                                       .about = "About.",
                                       .groups = groups,
                                       .n_groups = 2,
                                       .no_args = "there are no arguments"};

static struct values v;
static struct opt_result result;
static struct err e;

/* Words end with NULL. */
static int parse(const char *first, ...) {
    char *argv[16];
    int argc = 0;
    va_list ap;
    va_start(ap, first);
    for (const char *w = first; w; w = va_arg(ap, const char *))
        argv[argc++] = (char *)(uintptr_t)w;
    va_end(ap);
    opts_free(&table, &v);
    v = (struct values){0};
    e = (struct err){0};
    return opts_parse(&table, argc, argv, &v, &result, &e);
}

/* The line is refused as wrong usage, with a message that holds each of the texts. */
#define REFUSED(text1, text2, ...)                                                                                     \
    do {                                                                                                               \
        cr_assert_eq(parse(__VA_ARGS__, NULL), -1);                                                                    \
        cr_assert_eq(e.kind, ERR_USAGE);                                                                               \
        cr_assert(strstr(e.msg, text1), "'%s' is not in: %s", text1, e.msg);                                           \
        cr_assert(strstr(e.msg, text2), "'%s' is not in: %s", text2, e.msg);                                           \
    } while (0)

static void end(void) {
    opts_free(&table, &v);
}

Test(options, defaults, .fini = end) {
    cr_assert_eq(parse(NULL), 0);
    cr_assert(!v.flag && v.count == 7 && v.seed == 0 && v.bytes == 1024 && !v.text && v.list.n == 0);
    cr_assert(v.inner.temperature == 0.5 && v.inner.choice == 0);
    cr_assert_eq(opts_source(&table, &result, "count"), OPT_FROM_DEFAULT);
}

Test(options, every_type_both_ways, .fini = end) {
    cr_assert_eq(parse("--flag", "--count", "-5", "--seed=18446744073709551615", "--bytes=3G", "--text", "", "--list=a",
                       "--list", "b=c", "--temperature=1.25", "--two-words", "blue", NULL),
                 0, "%s", e.msg);
    cr_assert(v.flag && v.count == -5 && v.seed == UINT64_MAX && v.bytes == 3ull << 30);
    cr_assert_str_eq(v.text, "");
    cr_assert_eq(v.list.n, 2);
    cr_assert_str_eq(v.list.p[0], "a");
    cr_assert_str_eq(v.list.p[1], "b=c");
    cr_assert(v.inner.temperature == 1.25 && v.inner.choice == 2);
    cr_assert_eq(opts_source(&table, &result, "temperature"), OPT_FROM_LINE);
    cr_assert_eq(parse("--seed", "0xff", "--flag", "--no-flag", NULL), 0);
    cr_assert(v.seed == 255 && !v.flag);
}

Test(options, sizes, .fini = end) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},        {"12", 12},         {"2k", 2048},      {"2M", 2 << 20},
                {"1G", 1 << 30}, {"1T", 1ull << 40}, {"5MiB", 5 << 20}, {"5MB", 5 << 20}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cr_assert_eq(parse("--bytes", good[i].text, NULL), 0, "%s: %s", good[i].text, e.msg);
        cr_assert_eq(v.bytes, good[i].bytes, "%s", good[i].text);
    }
    static const char *const bad[] = {"",  "x", "1X", "1KK", "-1", "1.5G", "K", "99999999999T", "18446744073709551616",
                                      " 1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED("--bytes", "K, M, G", "--bytes", bad[i]);
}

Test(options, wrong_values_are_named_with_what_is_allowed, .fini = end) {
    REFUSED("--count: 'abc'", "-5 to 100", "--count", "abc");
    REFUSED("--count: '101'", "out of range (allowed: -5 to 100)", "--count=101");
    REFUSED("--count: '-6'", "out of range", "--count", "-6");
    REFUSED("--count: '1x'", "whole number", "--count=1x");
    REFUSED("--count: ''", "whole number", "--count=");
    REFUSED("--count: ' 1'", "whole number", "--count= 1");
    REFUSED("--count: '99999999999999999999'", "whole number", "--count=99999999999999999999");
    REFUSED("--seed: '-1'", "0 to 18446744073709551615", "--seed", "-1");
    REFUSED("--temperature: 'nan'", "0 to 2", "--temperature=nan");
    REFUSED("--temperature: 'inf'", "0 to 2", "--temperature=inf");
    REFUSED("--temperature: '2.01'", "0 to 2", "--temperature=2.01");
    REFUSED("--temperature: '1,5'", "not a number", "--temperature=1,5");
    REFUSED("--two-words: 'pink'", "one of red, green, blue", "--two-words=pink");
    REFUSED("--flag takes no value", "'1'", "--flag=1");
}

Test(options, missing_values, .fini = end) {
    REFUSED("--count needs a value", "--count N (allowed: -5 to 100)", "--count");
    REFUSED("--text needs a value", "--text=--flag", "--text", "--flag");
    cr_assert_eq(parse("--text", "--something", NULL), 0, "a text may look like an option that does not exist");
    cr_assert_str_eq(v.text, "--something");
    cr_assert_eq(parse("--text=--flag", NULL), 0);
    cr_assert_str_eq(v.text, "--flag");
}

Test(options, unknown_ones_suggest_the_nearest, .fini = end) {
    REFUSED("--cuont", "did you mean --count?", "--cuont", "3");
    REFUSED("--temp", "did you mean --temperature?", "--temp=3");
    REFUSED("--hlep", "did you mean --help?", "--hlep");
    REFUSED("no option --zzzzzzzz", "zzzzzzzz", "--zzzzzzzz");
    cr_assert_null(strstr(e.msg, "did you mean"));
    REFUSED("no option --no-count", "no-count", "--no-count");
    REFUSED("no option -c", "written out", "-c", "3");
    REFUSED("'word' is not an option", "there are no arguments", "word");
}

Test(options, two_dashes_end_them, .fini = end) {
    cr_assert_eq(parse("--flag", "--", NULL), 0);
    cr_assert(v.flag);
    REFUSED("'--flag' is not an option", "arguments", "--", "--flag");
    cr_assert_eq(parse("--count", "1", "--", "--help", NULL), -1);
    cr_assert(!result.help);
}

Test(options, help_wins_over_mistakes, .fini = end) {
    setenv("SPLITINF_COUNT", "many", 1);
    cr_assert_eq(parse("--nonsense", "--help", NULL), 0);
    cr_assert(result.help);
    cr_assert_eq(parse("-h", NULL), 0);
    cr_assert(result.help);
}

Test(options, line_before_environment_before_default, .fini = end) {
    setenv("SPLITINF_COUNT", "9", 1);
    setenv("SPLITINF_TWO_WORDS", "green", 1);
    setenv("SPLITINF_FLAG", "yes", 1);
    setenv("SPLITINF_LIST", "one\ntwo\n", 1);
    setenv("SPLITINF_TEXT", "", 1); /* empty counts as unset */
    cr_assert_eq(parse(NULL), 0, "%s", e.msg);
    cr_assert(v.count == 9 && v.inner.choice == 1 && v.flag && !v.text);
    cr_assert_eq(v.list.n, 2);
    cr_assert_str_eq(v.list.p[1], "two");
    cr_assert_eq(opts_source(&table, &result, "count"), OPT_FROM_ENV);
    cr_assert_eq(parse("--count=10", "--no-flag", "--list", "three", NULL), 0, "%s", e.msg);
    cr_assert(v.count == 10 && !v.flag);
    cr_assert_eq(v.list.n, 1);
    cr_assert_str_eq(v.list.p[0], "three");
}

Test(options, wrong_environment_names_the_variable, .fini = end) {
    setenv("SPLITINF_TWO_WORDS", "pink", 1);
    REFUSED("SPLITINF_TWO_WORDS: 'pink'", "one of red, green, blue", "--flag");
    setenv("SPLITINF_TWO_WORDS", "red", 1);
    setenv("SPLITINF_FLAG", "perhaps", 1);
    REFUSED("SPLITINF_FLAG: 'perhaps'", "yes or no", "--count=1");
}

Test(options, found_by_name, .fini = end) {
    const char *near = NULL;
    cr_assert_eq(opt_find(&groups[1], "temperature", &near), &inner_options[0]);
    cr_assert_null(opt_find(&groups[1], "temprature", &near));
    cr_assert_str_eq(near, "temperature");
    cr_assert_null(opt_find(&groups[1], "qqq", &near));
    cr_assert_null(near);
}

Test(help, comes_from_the_table) {
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    help_command(f, &table);
    fclose(f);
    cr_assert_eq(strncmp(text, "usage: splitinf test [OPTION]...\nusage: splitinf test --again\n\n", 63), 0, "%s",
                 text);
    cr_assert(strstr(text, "\nOuter\n") && strstr(text, "\nInner\n"));
    cr_assert(strstr(text, "--count N") && strstr(text, "a count (-5 to 100) [7]"), "%s", text);
    cr_assert(strstr(text, "--two-words C") && strstr(text, "a colour: red, green, blue [red]"), "%s", text);
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n");
        cr_assert_leq(len, 100, "%.*s", (int)len, line);
        line += len + 1;
    }
    free(text);
}

Test(suggest, distances) {
    cr_assert_eq(suggest_distance("", ""), 0);
    cr_assert_eq(suggest_distance("abc", ""), 3);
    cr_assert_eq(suggest_distance("kitten", "sitting"), 3);
    cr_assert_eq(suggest_distance("chat", "caht"), 1, "neighbours that changed places are one slip");
    cr_assert_eq(suggest_distance("ca", "abc"), 3, "the restricted form, known to differ from the full one here");
    char big[200];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    cr_assert_eq(suggest_distance(big, ""), 63);
}

/* What is shown when text comes in pieces of the given size, up to where it is stopped. */
static void shown_in_pieces(const struct strings *stops, const char *text, size_t piece, char *out, bool *hit) {
    size_t n = strlen(text), shown = 0, have = 0;
    *hit = false;
    while (have < n && !*hit) {
        have = have + piece < n ? have + piece : n;
        size_t to = stop_scan(stops, text, have, shown, hit);
        cr_assert(to >= shown && to <= have);
        memcpy(out + shown, text + shown, to - shown);
        shown = to;
    }
    if (!*hit) { /* the end: what was held back is shown */
        memcpy(out + shown, text + shown, n - shown);
        shown = n;
    }
    out[shown] = '\0';
}

Test(stop, strings_across_pieces) {
    static const struct {
        const char *stops[3], *text, *shown;
        bool hit;
    } cases[] = {
        {{"STOP"}, "one two", "one two", false},
        {{"STOP"}, "one STOP two", "one ", true},
        {{"STOP"}, "one STO", "one STO", false},
        {{"STOP"}, "one STSTOP", "one ST", true},
        {{"aab"}, "aaaab", "aa", true},
        {{"\n\nUser:", "###"}, "hi\n\nUsers\n## ###", "hi\n\nUsers\n## ", true},
        {{"abcX", "c"}, "abcX", "ab", true}, /* the one that is complete first */
        {{"bc", "abc"}, "abc", "", true},    /* complete together: the longer one */
        {{"\xc3\xa9"}, "\xc3\xa8\xc3\xa9x", "\xc3\xa8", true},
        {{"x"}, "x", "", true},
        {{0}, "nothing to stop at", "nothing to stop at", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct strings stops = {.p = (char **)(uintptr_t)cases[i].stops};
        while (stops.n < 3 && cases[i].stops[stops.n])
            stops.n++;
        for (size_t piece = 1; piece <= strlen(cases[i].text); piece++) {
            char out[64];
            bool hit;
            shown_in_pieces(&stops, cases[i].text, piece, out, &hit);
            cr_assert_str_eq(out, cases[i].shown, "case %zu in pieces of %zu: '%s'", i, piece, out);
            cr_assert_eq(hit, cases[i].hit, "case %zu in pieces of %zu", i, piece);
        }
    }
}

Test(stop, a_beginning_is_never_shown) {
    char *stop[] = {(char[]){"</answer>"}};
    struct strings stops = {stop, 1};
    const char *text = "so be it</answer>";
    bool hit;
    for (size_t n = 8; n < strlen(text); n++) {
        cr_assert_eq(stop_scan(&stops, text, n, 0, &hit), 8);
        cr_assert(!hit);
    }
    cr_assert_eq(stop_scan(&stops, text, strlen(text), 0, &hit), 8);
    cr_assert(hit);
}

Test(lines, into_messages) {
    static const struct {
        const char *lines[4], *message;
    } cases[] = {
        {{"hello"}, "hello"},
        {{""}, ""},
        {{"one \\", "two\\", "three"}, "one \ntwo\nthree"},
        {{"\"\"\"", "one", "", "\"\"\""}, "one\n"},
        {{"\"\"\"", "", "one", "\"\"\""}, "\none"},
        {{"\"\"\"one", "two\"\"\""}, "one\ntwo"},
        {{"\"\"\"one\"\"\""}, "one"},
        {{"\"\"\"", "back\\", "\"\"\""}, "back\\"},
        {{"say \"\"\" here"}, "say \"\"\" here"},
        {{"\\", "x"}, "\nx"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wbuf text = {0};
        struct line_joiner j = {0};
        int k = 0;
        do {
            cr_assert(k < 4 && cases[i].lines[k], "case %zu wants more lines", i);
            line_join(&j, cases[i].lines[k], strlen(cases[i].lines[k]), &text);
            k++;
        } while (j.more);
        cr_assert(k == 4 || !cases[i].lines[k], "case %zu ends after %d lines", i, k);
        cr_assert_str_eq(wbuf_cstr(&text), cases[i].message, "case %zu", i);
        wbuf_free(&text);
    }
}

static void put(const char *dir, const char *name, const char *text) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    cr_assert(f);
    fputs(text, f);
    fclose(f);
}

Test(memory, the_tightest_control_group_counts) {
    char root[] = "/tmp/test_cli_XXXXXX", dir[300];
    cr_assert(mkdtemp(root));
    snprintf(dir, sizeof dir, "%s/a", root);
    mkdir(dir, 0700);
    snprintf(dir, sizeof dir, "%s/a/b", root);
    mkdir(dir, 0700);
    cr_assert_eq(memory_cgroup_left(root, "/a/b"), UINT64_MAX, "no files: no limit");
    put(root, "a/b/memory.max", "max\n");
    put(root, "a/memory.max", "1000\n");
    put(root, "a/memory.stat", "file 900\nanon 300\nanon_thp 5\n");
    cr_assert_eq(memory_cgroup_left(root, "/a/b"), 700);
    cr_assert_eq(memory_cgroup_left(root, "/a"), 700);
    cr_assert_eq(memory_cgroup_left(root, ""), UINT64_MAX);
    put(root, "a/b/memory.max", "250\n");
    put(root, "a/b/memory.stat", "anon 300\n");
    cr_assert_eq(memory_cgroup_left(root, "/a/b"), 0, "over the limit already");
    static const char *const names[] = {
        "a/b/memory.max", "a/b/memory.stat", "a/memory.max", "a/memory.stat", "a/b", "a", ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(dir, sizeof dir, "%s/%s", root, names[i]);
        cr_assert_eq(remove(dir), 0, "%s", dir);
    }
}

Test(memory, this_machine_has_some) {
    cr_assert_gt(memory_available(), 1 << 20);
}
