/* net/identity: pins, the key and certificate in home, the allow list and the known clouds. */
#include "net/identity.h"

#include "core/base/file.h"
#include "net/identity_key.h"
#include "net/pin_list.h"
#include "test/unit/tls_rig.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char home[64], path[128];

static void open_home(void) {
    strcpy(home, "/tmp/splitinf-identity-XXXXXX");
    cr_assert_not_null(mkdtemp(home));
}

static void close_home(void) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", home);
    cr_assert_eq(system(command), 0);
}

TestSuite(identity, .init = open_home, .fini = close_home);
TestSuite(allow, .init = open_home, .fini = close_home);
TestSuite(known, .init = open_home, .fini = close_home);

static const char *in_home(const char *name) {
    snprintf(path, sizeof path, "%s/%s", home, name);
    return path;
}

static void put(const char *name, const char *text) {
    FILE *f = fopen(in_home(name), "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
    cr_assert_eq(chmod(path, 0600), 0);
}

static unsigned mode_of(const char *name) {
    struct stat st;
    cr_assert_eq(stat(in_home(name), &st), 0);
    return st.st_mode & 0777;
}

static struct pin pin_n(int n) {
    struct pin p = {{0}};
    memcpy(p.sha256, &n, sizeof n);
    return p;
}

static struct identity *must_open(const char *where) {
    struct identity *id;
    struct err e = {0};
    cr_assert_eq(identity_open(&id, where, &e), 0, "%s", e.msg);
    return id;
}

static void must_refuse(const char *where, enum err_kind kind, const char *says) {
    struct identity *id;
    struct err e = {0};
    cr_assert_eq(identity_open(&id, where, &e), -1);
    cr_assert_null(id);
    cr_assert_eq(e.kind, kind, "%s", e.msg);
    cr_assert(strstr(e.msg, says), "'%s' does not say '%s'", e.msg, says);
}

Test(pin, text_and_back) {
    static const struct {
        uint8_t first, step;
        const char *text; /* by Python's base64.urlsafe_b64encode */
    } known[] = {
        {0, 1, "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"},
        {0, 0, "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
        {255, 0, "sha256:__________________________________________8"},
    };
    struct pin p, q;
    struct err e = {0};
    char text[PIN_TEXT];
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        for (size_t i = 0; i < sizeof p.sha256; i++)
            p.sha256[i] = (uint8_t)(known[k].first + i * known[k].step);
        pin_format(&p, text);
        cr_assert_str_eq(text, known[k].text);
        cr_assert_eq(pin_parse(&q, text, &e), 0, "%s", e.msg);
        cr_assert(pin_equal(&p, &q));
    }
    q.sha256[31] ^= 1;
    cr_assert_not(pin_equal(&p, &q));
    q.sha256[31] ^= 1;
    q.sha256[0] ^= 128;
    cr_assert_not(pin_equal(&p, &q));
}

Test(pin, what_is_none) {
    static const char *const wrong[] = {
        "",
        "sha256:",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh",
        "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9", /* two bits too many */
        "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+",
        "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh/",
        "SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        " sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh",
        "sha256:AAECAwQFBgcICQoLDA0ODxAREhMU RYXGBkaGxwdHh8",
    };
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
        struct pin p = pin_n(7), before = p;
        struct err e = {0};
        cr_assert_eq(pin_parse(&p, wrong[k], &e), -1, "%s", wrong[k]);
        cr_assert_eq(e.kind, ERR_USAGE);
        cr_assert(strstr(e.msg, wrong[k]) && strstr(e.msg, "sha256:"), "%s", e.msg);
        cr_assert(pin_equal(&p, &before));
    }
    struct pin p;
    struct err e = {0};
    cr_assert_eq(pin_parse_n(&p, "sha256:AAECAwQFBgcICQoLDA0ODxAREhMU\0RYXGBkaGxwdHh8", 50, &e), -1);
}

static size_t unhex(const char *hex, uint8_t *out) {
    size_t n = 0;
    for (unsigned v; sscanf(hex + 2 * n, "%2x", &v) == 1; n++)
        out[n] = (uint8_t)v;
    return n;
}

Test(pin, of_a_key) {
    /* Keys by openssl ecparam -genkey; openssl pkey -pubout -outform der | openssl dgst -sha256 -binary | base64 */
    static const char p256[] =
        "3059301306072a8648ce3d020106082a8648ce3d030107034200045c92bf0b53aa9f1248259fb43dfc4250ff630c"
        "546872c89d3600537800fe56263a47536d0966c3f6e7af1ee29027a68b897c60b5f60b7a0f2231e7cee8fb9fc1";
    static const char compressed[] =
        "3039301306072a8648ce3d020106082a8648ce3d030107032200035c92bf0b53aa9f1248259fb43dfc4250f"
        "f630c546872c89d3600537800fe5626";
    static const char secp256k1[] =
        "3056301006072a8648ce3d020106052b8104000a03420004e14deb7fd81f0543aa44338ea97b9d96a917e824"
        "7f4c3882eb85f23f245971ce78b467fa06ac807105eb7008db4fe84c5066b7e32a58da288ff4f5c806f6d93b";
    uint8_t der[256];
    struct pin p;
    struct err e = {0};
    char text[PIN_TEXT];
    cr_assert_eq(crypto_start(&e), 0, "%s", e.msg);
    size_t n = unhex(p256, der);
    cr_assert(pin_of_spki(&p, der, n));
    pin_format(&p, text);
    cr_assert_str_eq(text, "sha256:qib7isLuvy9HWHnsdhNu3GgTfFxsCq2H31FJJr7YqKs");
    for (size_t k = 0; k < n; k++)
        cr_assert_not(pin_of_spki(&p, der, k), "the first %zu bytes", k);
    cr_assert_not(pin_of_spki(&p, der, n + 1));
    cr_assert_not(pin_of_spki(&p, der, unhex(compressed, der)));
    cr_assert_not(pin_of_spki(&p, der, unhex(secp256k1, der)));
}

Test(identity, first_and_later_use) {
    char deep[128];
    snprintf(deep, sizeof deep, "%s/a/b/", home);
    struct identity *first = must_open(deep);
    cr_assert_eq(mode_of("a"), 0700);
    cr_assert_eq(mode_of("a/b"), 0700);
    cr_assert_eq(mode_of("a/b/key.pem"), 0600);
    cr_assert_eq(unlink(in_home("a/b/lock")), 0);
    struct identity *second = must_open(deep);
    cr_assert(pin_equal(identity_pin(first), identity_pin(second)));
    cr_assert_not(file_exists(in_home("a/b/lock")), "an identity that is there is only read");
    identity_free(first);
    identity_free(second);
}

Test(identity, a_lost_certificate_costs_nothing_and_a_lost_key_everything) {
    struct identity *first = must_open(home);
    cr_assert_eq(unlink(in_home("cert.pem")), 0);
    struct identity *second = must_open(home);
    cr_assert(pin_equal(identity_pin(first), identity_pin(second)));
    identity_free(second);
    cr_assert_eq(unlink(in_home("key.pem")), 0);
    second = must_open(home);
    cr_assert_not(pin_equal(identity_pin(first), identity_pin(second)));
    identity_free(first);
    identity_free(second);
}

Test(identity, ephemeral_ones_differ) {
    struct identity *a, *b;
    struct err e = {0};
    cr_assert_eq(identity_ephemeral(&a, &e), 0, "%s", e.msg);
    cr_assert_eq(identity_ephemeral(&b, &e), 0, "%s", e.msg);
    cr_assert_not(pin_equal(identity_pin(a), identity_pin(b)));
    identity_free(a);
    identity_free(b);
    identity_free(NULL);
}

Test(identity, others_may_not_read_the_key_nor_write_beside_it) {
    identity_free(must_open(home));
    for (unsigned mode = 0601; mode <= 0640; mode = mode == 0601 ? 0604 : mode == 0604 ? 0640 : 0641) {
        cr_assert_eq(chmod(in_home("key.pem"), mode), 0);
        must_refuse(home, ERR_CRYPTO, "chmod 600 /tmp/splitinf-identity-");
    }
    cr_assert_eq(chmod(in_home("key.pem"), 0400), 0);
    identity_free(must_open(home));
    cr_assert_eq(chmod(home, 0770), 0);
    must_refuse(home, ERR_CRYPTO, "chmod go-w /tmp/splitinf-identity-");
    cr_assert_eq(chmod(home, 0755), 0);
    identity_free(must_open(home));
}

Test(identity, where_it_cannot_be) {
    char where[128];
    put("file", "");
    snprintf(where, sizeof where, "%s/file", home);
    must_refuse(where, ERR_IO, "no directory");
    snprintf(where, sizeof where, "%s/file/below", home);
    must_refuse(where, ERR_IO, "--home DIR");
    must_refuse("", ERR_USAGE, "--home");
    /* A directory that even root cannot write to. */
    must_refuse("/proc/self/fdinfo", ERR_IO, "/proc/self/fdinfo/lock");
    must_refuse("/proc/nothing/here", ERR_IO, "cannot make the directory /proc/nothing");
    char *long_path = malloc(6000);
    cr_assert_not_null(long_path);
    memset(long_path, 'x', 5999);
    long_path[0] = '/';
    long_path[5999] = '\0';
    must_refuse(long_path, ERR_USAGE, "path too long");
    free(long_path);
}

Test(identity, damaged_files) {
    struct rig_pem {
        unsigned char text[4096];
    } *other = calloc(1, sizeof *other);
    struct tls_rig_cert p384;
    char *good_key;
    size_t n;
    struct err e = {0};
    cr_assert_not_null(other);
    identity_free(must_open(home));
    cr_assert_eq(file_read(in_home("key.pem"), 1 << 16, &good_key, &n, &e), 0, "%s", e.msg);

    put("key.pem", "");
    must_refuse(home, ERR_CRYPTO, "key.pem: it holds no private key");
    put("key.pem", "-----BEGIN EC PRIVATE KEY-----\nMHc=\n-----END EC PRIVATE KEY-----\n");
    must_refuse(home, ERR_CRYPTO, "key.pem: it holds no private key");
    tls_rig_cert_make(&p384, TLS_RIG_P384, "20200101000000", "20300101000000");
    cr_assert_eq(mbedtls_pk_write_key_pem(&p384.key, other->text, sizeof other->text), 0);
    put("key.pem", (char *)other->text);
    must_refuse(home, ERR_CRYPTO, "key.pem: its key is not ECDSA P-256");
    tls_rig_cert_free(&p384);
    /* Cut anywhere, it is no key: the line that ends it is missing. */
    for (size_t cut = 1; cut + 2 < n; cut += 5) {
        char c = good_key[cut];
        good_key[cut] = '\0';
        put("key.pem", good_key);
        must_refuse(home, ERR_CRYPTO, "key.pem");
        good_key[cut] = c;
    }
    put("key.pem", good_key);
    put("cert.pem", "what?");
    must_refuse(home, ERR_CRYPTO, "cert.pem: it holds no certificate");
    cr_assert_eq(unlink(in_home("key.pem")), 0);
    identity_free(must_open(home)); /* another key, with another certificate */
    put("key.pem", good_key);
    must_refuse(home, ERR_CRYPTO, "cert.pem: the certificate does not belong to key.pem");
    cr_assert_eq(unlink(in_home("cert.pem")), 0);
    identity_free(must_open(home));
    cr_assert_eq(unlink(in_home("key.pem")), 0);
    cr_assert_eq(mkdir(in_home("key.pem"), 0700), 0);
    must_refuse(home, ERR_CRYPTO, "is no key");
    cr_assert_eq(rmdir(in_home("key.pem")), 0);
    free(good_key);
    free(other);
}

Test(identity, processes_that_start_at_once_are_one_machine) {
    enum { N = 8 };
    int gate[2], pins[2];
    struct pin got[N];
    char go = 0;
    cr_assert(pipe(gate) == 0 && pipe(pins) == 0);
    for (int i = 0; i < N; i++) {
        pid_t pid = fork();
        cr_assert_geq(pid, 0);
        if (pid == 0) {
            struct identity *id;
            struct err e = {0};
            bool ok = close(gate[1]) == 0 && read(gate[0], &go, 1) == 0 && identity_open(&id, home, &e) == 0 &&
                      write(pins[1], identity_pin(id), sizeof(struct pin)) == sizeof(struct pin);
            _exit(ok ? 0 : 1);
        }
    }
    close(gate[0]);
    close(gate[1]); /* now */
    for (int i = 0, status; i < N; i++)
        cr_assert(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cr_assert_eq(read(pins[0], got, sizeof got), (ssize_t)sizeof got);
    struct identity *id = must_open(home);
    for (int i = 0; i < N; i++)
        cr_assert(pin_equal(&got[i], identity_pin(id)));
    identity_free(id);
    close(pins[0]);
    close(pins[1]);
}

Test(identity, default_home) {
    struct err e = {0};
    setenv("HOME", "/somewhere", 1);
    char *where = identity_default_home(&e);
    cr_assert_str_eq(where, "/somewhere/.splitinf");
    free(where);
    unsetenv("HOME");
    cr_assert_null(identity_default_home(&e));
    cr_assert(strstr(e.msg, "--home DIR"));
}

#define A "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define B "sha256:qib7isLuvy9HWHnsdhNu3GgTfFxsCq2H31FJJr7YqKs"

static struct pin parsed(const char *text) {
    struct pin p;
    struct err e = {0};
    cr_assert_eq(pin_parse(&p, text, &e), 0, "%s", e.msg);
    return p;
}

Test(allow, from_the_command_line_and_a_file) {
    struct allow_list *a;
    struct err e = {0};
    struct pin given[] = {pin_n(1), pin_n(2)}, pa = parsed(A), pb = parsed(B), p3 = pin_n(3);
    put("allow", "# who may come\n\n  " A "  Anna's laptop\r\n\t" B "\n   # nobody else");
    cr_assert_eq(allow_list_create(&a, given, 2, in_home("allow"), &e), 0, "%s", e.msg);
    cr_assert_eq(allow_list_size(a), 4);
    cr_assert(allow_list_has(a, &given[0]) && allow_list_has(a, &given[1]) && allow_list_has(a, &pa) &&
              allow_list_has(a, &pb));
    cr_assert_not(allow_list_has(a, &p3));

    put("allow", B);
    cr_assert_eq(allow_list_reload(a, &e), 0, "%s", e.msg);
    cr_assert_eq(allow_list_size(a), 3);
    cr_assert_not(allow_list_has(a, &pa));

    put("allow", A "\nsha256:oops\n");
    cr_assert_eq(allow_list_reload(a, &e), -1);
    cr_assert(strstr(e.msg, "/allow, line 2: 'sha256:oops' is no pin"), "%s", e.msg);
    cr_assert(allow_list_has(a, &pb) && !allow_list_has(a, &pa), "what was there stays");
    cr_assert_eq(unlink(in_home("allow")), 0);
    e = (struct err){0};
    cr_assert_eq(allow_list_reload(a, &e), -1);
    cr_assert(strstr(e.msg, "/allow") && allow_list_has(a, &pb));
    put("allow", "");
    e = (struct err){0};
    cr_assert_eq(allow_list_reload(a, &e), 0, "%s", e.msg);
    cr_assert_eq(allow_list_size(a), 2);
    allow_list_free(a);
    allow_list_free(NULL);
}

Test(allow, nobody) {
    struct allow_list *a;
    struct err e = {0};
    struct pin p = {{0}};
    cr_assert_eq(allow_list_create(&a, NULL, 0, NULL, &e), 0, "%s", e.msg);
    cr_assert_not(allow_list_has(a, &p), "deny by default");
    cr_assert_eq(allow_list_size(a), 0);
    cr_assert_eq(allow_list_reload(a, &e), 0);
    allow_list_free(a);
}

static void refused_text(const char *text, size_t n, const char *says) {
    struct pin *pins;
    int count;
    struct err e = {0};
    cr_assert_eq(allow_parse(&pins, &count, text, n, "F", &e), -1);
    cr_assert(strstr(e.msg, says), "'%s' does not say '%s'", e.msg, says);
    cr_assert_null(pins);
    bool found;
    struct pin p;
    e = (struct err){0};
    cr_assert_eq(known_parse("a:1", &p, &found, text, n, "F", &e), -1);
    cr_assert_not(found);
}

Test(allow, hostile_files) {
    struct pin *pins;
    int n;
    struct err e = {0};
    refused_text(A "\n\0\n", sizeof A + 1, "F, line 2: a zero byte");
    char *big = malloc(PIN_LIST_FILE_MAX + 1);
    cr_assert_not_null(big);
    memset(big, '#', PIN_LIST_FILE_MAX + 1);
    refused_text(big, PIN_LIST_FILE_MAX + 1, "F is larger than");
    refused_text(big, PIN_LIST_LINE_MAX + 1, "F, line 1: longer than");
    memset(big, '\n', PIN_LIST_FILE_MAX);
    cr_assert_eq(allow_parse(&pins, &n, big, PIN_LIST_FILE_MAX, "F", &e), 0);
    cr_assert(n == 0 && !pins);
    size_t len = 0;
    int lines = 0;
    while (len + sizeof A < PIN_LIST_FILE_MAX) {
        memcpy(big + len, A "\n", sizeof A);
        len += sizeof A;
        lines++;
    }
    cr_assert_eq(allow_parse(&pins, &n, big, len, "F", &e), 0, "%s", e.msg);
    cr_assert_eq(n, lines);
    free(pins);
    free(big);
}

struct reloading {
    struct allow_list *a;
    struct pin stays;
    atomic_bool done, missed;
};

static void *look(void *arg) {
    struct reloading *r = arg;
    while (!atomic_load(&r->done))
        if (!allow_list_has(r->a, &r->stays) || allow_list_size(r->a) < 1)
            atomic_store(&r->missed, true);
    return NULL;
}

Test(allow, is_whole_while_it_is_reloaded) {
    struct reloading r = {.stays = parsed(B)};
    struct err e = {0};
    pthread_t thread[2];
    put("allow", A "\n" B "\n");
    put("allow2", B "\n");
    cr_assert_eq(allow_list_create(&r.a, NULL, 0, in_home("allow"), &e), 0, "%s", e.msg);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&thread[i], NULL, look, &r), 0);
    for (int i = 0; i < 100; i++) {
        char fresh[128];
        put("fresh", i % 2 ? A "\n" B "\n" : B "\n");
        strcpy(fresh, path);
        cr_assert_eq(rename(fresh, in_home("allow")), 0);
        cr_assert_eq(allow_list_reload(r.a, &e), 0, "%s", e.msg);
    }
    atomic_store(&r.done, true);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    cr_assert_not(atomic_load(&r.missed));
    allow_list_free(r.a);
}

Test(known, remembered_and_found_again) {
    struct pin pa = parsed(A), pb = parsed(B), p;
    bool found = true;
    struct err e = {0};
    char deep[128];
    snprintf(deep, sizeof deep, "%s/new/home", home);
    cr_assert_eq(known_cloud_find(deep, "cloud:7433", &p, &found, &e), 0, "%s", e.msg);
    cr_assert_not(found);
    cr_assert_eq(known_cloud_add(deep, "cloud:7433", &pa, &e), 0, "%s", e.msg);
    cr_assert_eq(known_cloud_add(deep, "[2001:db8::1]:7433", &pb, &e), 0, "%s", e.msg);
    cr_assert_eq(known_cloud_add(deep, "cloud:7433", &pa, &e), 0, "%s", e.msg);
    cr_assert_eq(known_cloud_find(deep, "CLOUD:7433", &p, &found, &e), 0, "%s", e.msg);
    cr_assert(found && pin_equal(&p, &pa));
    cr_assert_eq(known_cloud_find(deep, "[2001:db8::1]:7433", &p, &found, &e), 0, "%s", e.msg);
    cr_assert(found && pin_equal(&p, &pb));
    cr_assert_eq(known_cloud_find(deep, "cloud:743", &p, &found, &e), 0, "%s", e.msg);
    cr_assert_not(found);
    char *text;
    size_t n;
    cr_assert_eq(file_read(in_home("new/home/known_clouds"), 4096, &text, &n, &e), 0, "%s", e.msg);
    cr_assert_str_eq(text, "cloud:7433 " A "\n[2001:db8::1]:7433 " B "\n");
    free(text);
    cr_assert_eq(mode_of("new/home/known_clouds"), 0600);
    cr_assert_eq(known_cloud_add(deep, "cloud:7433", &pb, &e), -1);
    cr_assert(e.kind == ERR_USAGE && strstr(e.msg, "known_clouds") && strstr(e.msg, A), "%s", e.msg);
}

Test(known, a_file_that_a_person_wrote) {
    struct pin pa = parsed(A), pb = parsed(B), p;
    bool found;
    struct err e = {0};
    put("known_clouds", "# mine\n\ncloud:1 " A); /* no newline at the end */
    cr_assert_eq(known_cloud_add(home, "cloud:2", &pb, &e), 0, "%s", e.msg);
    cr_assert_eq(known_cloud_find(home, "cloud:1", &p, &found, &e), 0, "%s", e.msg);
    cr_assert(found && pin_equal(&p, &pa));
    cr_assert_eq(known_cloud_find(home, "cloud:2", &p, &found, &e), 0, "%s", e.msg);
    cr_assert(found && pin_equal(&p, &pb));
}

Test(known, what_is_wrong_is_said_with_its_line) {
    static const struct {
        const char *text, *says;
    } wrong[] = {
        {"cloud:1 " A "\ncloud:1 " B "\n", "line 2: cloud:1 stands above with another pin"},
        {"\ncloud:2\n", "line 2: not of the form"},
        {"cloud:2 " A " x\n", "line 1: not of the form"},
        {"#\n#\ncloud:2 sha256:x\n", "line 3: 'sha256:x' is no pin"},
        {"cloud:1 " A "\n\x01\xff\n", "line 2: not of the form"},
    };
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
        struct pin p;
        bool found = true;
        struct err e = {0};
        put("known_clouds", wrong[k].text);
        cr_assert_eq(known_cloud_find(home, "cloud:1", &p, &found, &e), -1);
        cr_assert(strstr(e.msg, wrong[k].says) && strstr(e.msg, "/known_clouds"), "%s", e.msg);
        e = (struct err){0};
        p = pin_n(1);
        cr_assert_eq(known_cloud_add(home, "cloud:1", &p, &e), -1, "a file that is not understood is not written over");
    }
}

Test(known, addresses) {
    static const char *const wrong[] = {"",        "cloud",       "cloud:", ":7433",     "two words:1",
                                        "tab\t:1", "new\nline:1", "#x:1",   "\xc3\xa9:1"};
    struct pin p = pin_n(1);
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
        struct err e = {0};
        cr_assert_eq(known_cloud_add(home, wrong[k], &p, &e), -1, "%s", wrong[k]);
        cr_assert_eq(e.kind, ERR_USAGE);
    }
    cr_assert_not(file_exists(in_home("known_clouds")));
}
