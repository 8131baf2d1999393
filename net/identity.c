/* The key and certificate of this machine. The certificate is only a wrapper that TLS wants: nothing in it counts but
 * the key, so one that is missing is made again. */
#include "net/identity_key.h"

#include "core/base/file.h"
#include "core/base/log.h"
#include "core/base/wipe.h"
#include "net/home.h"

#include <errno.h>
#include <fcntl.h>
#include <mbedtls/error.h>
#include <mbedtls/pem.h>
#include <mbedtls/psa_util.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MAX = 16384, PEM_MAX = 4096 };

static psa_status_t started;

static void start(void) {
    started = psa_crypto_init();
}

int crypto_start(struct err *e) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start);
    if (started != PSA_SUCCESS)
        return err_set(e, ERR_CRYPTO,
                       "the crypto library does not start (status %d); has this system a source of entropy?",
                       (int)started);
    return 0;
}

void crypto_strerror(int code, char *out, size_t cap) {
    mbedtls_strerror(code, out, cap);
}

static int crypto_err(struct err *e, int code, const char *what) {
    char text[128];
    crypto_strerror(code, text, sizeof text);
    return err_set(e, ERR_CRYPTO, "%s: %s (-0x%04x)", what, text, (unsigned)-code);
}

static struct identity *identity_new(struct err *e) {
    struct identity *id = calloc(1, sizeof *id);
    if (!id) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    mbedtls_pk_init(&id->key);
    mbedtls_x509_crt_init(&id->cert);
    return id;
}

void identity_free(struct identity *id) {
    if (!id)
        return;
    mbedtls_pk_free(&id->key);
    mbedtls_x509_crt_free(&id->cert);
    wipe_free(id, sizeof *id);
}

const struct pin *identity_pin(const struct identity *id) {
    return &id->pin;
}

static psa_key_attributes_t attributes_of_key(void) {
    psa_key_attributes_t a = PSA_KEY_ATTRIBUTES_INIT;
    psa_set_key_type(&a, PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1));
    psa_set_key_bits(&a, 256);
    psa_set_key_usage_flags(&a, PSA_KEY_USAGE_EXPORT);
    psa_set_key_algorithm(&a, PSA_ALG_ECDSA(PSA_ALG_ANY_HASH));
    return a;
}

/* Takes over a key from PSA, which has worked out the public half from the private one, whatever a file says. */
static int adopt_key(struct identity *id, psa_key_id_t from, struct err *e) {
    unsigned char spki[128];
    int n = 0, rc = mbedtls_pk_copy_from_psa(from, &id->key);
    psa_destroy_key(from);
    if (rc != 0)
        return crypto_err(e, rc, "cannot use the key");
    n = mbedtls_pk_write_pubkey_der(&id->key, spki, sizeof spki); /* stands at the buffer's end */
    if (n < 0)
        return crypto_err(e, n, "cannot write the public key");
    if (!pin_of_spki(&id->pin, spki + sizeof spki - n, (size_t)n))
        return err_set(e, ERR_CRYPTO, "cannot make the pin of the key");
    return 0;
}

static int make_key(struct identity *id, struct err *e) {
    psa_key_attributes_t a = attributes_of_key();
    psa_key_id_t key;
    psa_status_t status = psa_generate_key(&a, &key);
    if (status == PSA_ERROR_INSUFFICIENT_MEMORY)
        return err_set(e, ERR_MEMORY, "out of memory making a key");
    if (status != PSA_SUCCESS)
        return err_set(e, ERR_CRYPTO, "cannot make a key (status %d)", (int)status);
    return adopt_key(id, key, e);
}

/* text has a NUL behind its n bytes, which PEM wants to see counted. */
static int parse_key(struct identity *id, const char *text, size_t n, const char *path, struct err *e) {
    mbedtls_pk_context file;
    psa_key_attributes_t a = attributes_of_key(), in_file = PSA_KEY_ATTRIBUTES_INIT;
    psa_key_id_t key;
    int rc = -1;
    mbedtls_pk_init(&file);
    int code = mbedtls_pk_parse_key(&file, (const unsigned char *)text, n + 1, NULL, 0, mbedtls_psa_get_random,
                                    MBEDTLS_PSA_RANDOM_STATE);
    if (code != 0) {
        crypto_err(e, code,
                   "it holds no private key in PEM that can be read; to start anew with another pin, remove it");
        goto out;
    }
    if (mbedtls_pk_get_psa_attributes(&file, PSA_KEY_USAGE_SIGN_HASH, &in_file) != 0 ||
        psa_get_key_type(&in_file) != psa_get_key_type(&a) || psa_get_key_bits(&in_file) != psa_get_key_bits(&a)) {
        err_set(e, ERR_CRYPTO, "its key is not ECDSA P-256; to start anew with another pin, remove it");
        goto out;
    }
    code = mbedtls_pk_import_into_psa(&file, &a, &key);
    if (code != 0) {
        crypto_err(e, code, "its key cannot be used");
        goto out;
    }
    rc = adopt_key(id, key, e);
out:
    mbedtls_pk_free(&file);
    return rc == 0 ? 0 : err_wrap(e, "%s", path);
}

/* Into id->cert, from id->key. Its dates span all of time: only the pin counts. */
static int make_cert(struct identity *id, struct err *e) {
    mbedtls_x509write_cert w;
    unsigned char serial[16], der[1024];
    mbedtls_x509write_crt_init(&w);
    mbedtls_x509write_crt_set_version(&w, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&w, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&w, &id->key);
    mbedtls_x509write_crt_set_issuer_key(&w, &id->key);
    int rc = mbedtls_psa_get_random(MBEDTLS_PSA_RANDOM_STATE, serial, sizeof serial);
    serial[0] = (serial[0] & 0x7f) | 0x40; /* positive, and of one length */
    if (rc == 0)
        rc = mbedtls_x509write_crt_set_serial_raw(&w, serial, sizeof serial);
    if (rc == 0)
        rc = mbedtls_x509write_crt_set_subject_name(&w, "CN=splitinf");
    if (rc == 0)
        rc = mbedtls_x509write_crt_set_issuer_name(&w, "CN=splitinf");
    if (rc == 0)
        rc = mbedtls_x509write_crt_set_validity(&w, "20200101000000", "99991231235959");
    if (rc == 0)
        rc = mbedtls_x509write_crt_set_basic_constraints(&w, 0, -1);
    if (rc == 0)
        rc = mbedtls_x509write_crt_set_key_usage(&w, MBEDTLS_X509_KU_DIGITAL_SIGNATURE);
    if (rc == 0)
        rc = mbedtls_x509write_crt_der(&w, der, sizeof der, mbedtls_psa_get_random, MBEDTLS_PSA_RANDOM_STATE);
    if (rc > 0)
        rc = mbedtls_x509_crt_parse_der(&id->cert, der + sizeof der - rc, (size_t)rc);
    mbedtls_x509write_crt_free(&w);
    return rc == 0 ? 0 : crypto_err(e, rc, "cannot make the certificate");
}

static int parse_cert(struct identity *id, const char *text, size_t n, const char *path, struct err *e) {
    struct pin pin;
    int code = mbedtls_x509_crt_parse(&id->cert, (const unsigned char *)text, n + 1);
    if (code != 0) {
        crypto_err(e, code < 0 ? code : MBEDTLS_ERR_X509_INVALID_FORMAT, "it holds no certificate that can be read");
    } else if (id->cert.next || !pin_of_spki(&pin, id->cert.pk_raw.p, id->cert.pk_raw.len) ||
               !pin_equal(&pin, &id->pin)) {
        err_set(e, ERR_CRYPTO, "the certificate does not belong to key.pem beside it");
    } else {
        return 0;
    }
    err_wrap(e, "%s", path);
    return -1;
}

static int write_key(struct identity *id, const char *path, struct err *e) {
    unsigned char pem[PEM_MAX];
    int rc = mbedtls_pk_write_key_pem(&id->key, pem, sizeof pem);
    if (rc != 0)
        crypto_err(e, rc, "cannot write the key");
    else
        rc = home_write(path, pem, strlen((char *)pem), e);
    wipe(pem, sizeof pem);
    return rc == 0 ? 0 : -1;
}

static int write_cert(struct identity *id, const char *path, struct err *e) {
    unsigned char pem[PEM_MAX];
    size_t n;
    int rc = mbedtls_pem_write_buffer("-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", id->cert.raw.p,
                                      id->cert.raw.len, pem, sizeof pem, &n);
    if (rc != 0)
        return crypto_err(e, rc, "cannot write the certificate");
    return home_write(path, pem, n - 1, e); /* n counts the NUL */
}

/* The whole file with a NUL behind it, from the descriptor whose mode was looked at. *text is NULL when there is none.
 */
static int read_key_file(const char *path, char **text, size_t *n, struct err *e) {
    struct stat st;
    size_t got = 0;
    char *p = NULL;
    int rc = -1;
    *text = NULL;
    *n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(e, errno, "cannot read the key %s", path);
    if (fstat(fd, &st) != 0) {
        err_sys(e, errno, "cannot read the key %s", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
        err_set(e, ERR_CRYPTO, "%s is no key", path);
        goto out;
    }
    if (st.st_mode & (S_IRWXG | S_IRWXO)) {
        err_set(
            e, ERR_CRYPTO,
            "the key %s is open to others (mode %03o); whoever read it can pass for this machine. If nobody did, type: "
            "chmod 600 %s",
            path, (unsigned)st.st_mode & 0777, path);
        goto out;
    }
    if (!(p = calloc(1, FILE_MAX + 1))) {
        err_set(e, ERR_MEMORY, "out of memory reading %s", path);
        goto out;
    }
    while (got < FILE_MAX) {
        ssize_t k = read(fd, p + got, FILE_MAX - got);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0) {
            err_sys(e, errno, "cannot read the key %s", path);
            goto out;
        }
        if (k == 0)
            break;
        got += (size_t)k;
    }
    *text = p;
    *n = got;
    p = NULL;
    rc = 0;
out:
    wipe_free(p, FILE_MAX + 1);
    close(fd);
    return rc;
}

/* *found false: there is no key. A key without a certificate is found, and leaves id->cert empty. */
static int load(struct identity *id, const char *key_path, const char *cert_path, bool *found, struct err *e) {
    char *key, *cert = NULL;
    size_t n_key, n_cert;
    *found = false;
    if (read_key_file(key_path, &key, &n_key, e) != 0)
        return -1;
    if (!key)
        return 0;
    *found = true;
    int rc = parse_key(id, key, n_key, key_path, e);
    wipe_free(key, FILE_MAX + 1);
    if (rc == 0 && file_exists(cert_path)) {
        rc = file_read(cert_path, FILE_MAX, &cert, &n_cert, e);
        if (rc == 0)
            rc = parse_cert(id, cert, n_cert, cert_path, e);
        free(cert);
    }
    return rc;
}

/* The key comes last: where it is, everything is. So a process that finds it needs no lock. */
static int make(struct identity *id, const char *key_path, const char *cert_path, struct err *e) {
    if (make_key(id, e) != 0 || make_cert(id, e) != 0 || write_cert(id, cert_path, e) != 0 ||
        write_key(id, key_path, e) != 0)
        return -1;
    log_line(LOG_INFO, "made a new key: %s", key_path);
    return 0;
}

int identity_open(struct identity **out, const char *home, struct err *e) {
    char key_path[HOME_PATH], cert_path[HOME_PATH];
    bool found;
    int lock = -1;
    *out = NULL;
    if (crypto_start(e) != 0 || file_join(key_path, sizeof key_path, home, "key.pem", e) != 0 ||
        file_join(cert_path, sizeof cert_path, home, "cert.pem", e) != 0)
        return -1;
    if (home_check(home, &found, e) != 0)
        return -1;
    struct identity *id = identity_new(e);
    if (!id || load(id, key_path, cert_path, &found, e) != 0)
        goto out;
    if (!found) {
        /* Another process may be at it: look again once it is this one's turn. */
        if (home_make(home, e) != 0 || (lock = home_lock(home, e)) < 0 ||
            load(id, key_path, cert_path, &found, e) != 0 || (!found && make(id, key_path, cert_path, e) != 0))
            goto out;
    }
    if (!id->cert.raw.p && make_cert(id, e) != 0) /* only in memory: it costs a millisecond */
        goto out;
    home_unlock(lock);
    *out = id;
    return 0;
out:
    home_unlock(lock);
    identity_free(id);
    return -1;
}

int identity_ephemeral(struct identity **out, struct err *e) {
    *out = NULL;
    if (crypto_start(e) != 0)
        return -1;
    struct identity *id = identity_new(e);
    if (!id || make_key(id, e) != 0 || make_cert(id, e) != 0) {
        identity_free(id);
        return -1;
    }
    *out = id;
    return 0;
}

char *identity_default_home(struct err *e) {
    const char *user = getenv("HOME");
    char *home;
    if (!user || !*user) {
        err_set(e, ERR_USAGE, "there is no HOME, so splitinf's own files have no place; name one with --home DIR");
        return NULL;
    }
    if (asprintf(&home, "%s/.splitinf", user) < 0) {
        err_set(e, ERR_MEMORY, "out of memory");
        return NULL;
    }
    return home;
}
