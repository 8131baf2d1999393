/* net/identity.h - who this machine is, and whom it knows: a key with its self-signed certificate, pins, the list of
 * allowed clients, and the pins remembered for addresses. Files live in a home directory (0700); the key is 0600.
 * Knows nothing of sockets. Pins and lists are typed by people or come from strangers' certificates. */
#ifndef NET_IDENTITY_H
#define NET_IDENTITY_H

#include "core/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pin {
    uint8_t sha256[32]; /* of the SubjectPublicKeyInfo in DER */
};
enum { PIN_TEXT = 7 + 43 + 1 }; /* "sha256:", base64url without padding, NUL */

void pin_format(const struct pin *p, char text[PIN_TEXT]);
/* ERR_USAGE names the text and says what a pin looks like. */
int pin_parse(struct pin *p, const char *text, struct err *e);
bool pin_equal(const struct pin *a, const struct pin *b); /* in constant time */

struct identity; /* key and certificate, for net/tls.c */

/* Reads the key and certificate in home, or makes them (ECDSA P-256) on first use; two processes that start at once end
 * up with the same. Refuses a key that others may read or that is not what it should be: the message says what to do.
 */
int identity_open(struct identity **out, const char *home, struct err *e);
/* A fresh key that is never written: for demo, bench and tests. */
int identity_ephemeral(struct identity **out, struct err *e);
void identity_free(struct identity *id); /* wipes */
const struct pin *identity_pin(const struct identity *id);

/* Where home is when nothing names one: $HOME/.splitinf, where chat keeps its history as well. Malloc'ed; NULL and e
 * when there is no HOME. */
char *identity_default_home(struct err *e);

/* Clients that a cloud serves: a set of pins given one by one, and one file of lines "PIN [name]", '#' comments. Safe
 * to reload while other threads look. */
struct allow_list;
int allow_list_create(struct allow_list **out, const struct pin *pins, int n, const char *file, struct err *e);
int allow_list_reload(struct allow_list *a, struct err *e); /* on failure what was there stays */
void allow_list_free(struct allow_list *a);
bool allow_list_has(struct allow_list *a, const struct pin *p);
int allow_list_size(struct allow_list *a);

/* home/known_clouds, lines "HOST:PORT PIN". */
int known_cloud_find(const char *home, const char *address, struct pin *p, bool *found, struct err *e);
/* Appends (written to a new file, then renamed). ERR_USAGE when the address is known with another pin. */
int known_cloud_add(const char *home, const char *address, const struct pin *p, struct err *e);

#endif
