/* net/pin_list.h - the two text files of pins, as pure functions over bytes: who may come (allow list), and who was met
 * (known clouds). Lines end with \n or \r\n, '#' starts a comment line, blank lines are nothing; the bytes are not
 * trusted. Messages name file and line. */
#ifndef NET_PIN_LIST_H
#define NET_PIN_LIST_H

#include "core/base/err.h"
#include "net/identity.h"

#include <stddef.h>

enum {
    PIN_LIST_FILE_MAX = 1 << 20, /* bytes of a file */
    PIN_LIST_LINE_MAX = 1000,    /* bytes of a line */
    ADDRESS_MAX = 270,           /* bytes of HOST:PORT */
};

int pin_parse_n(struct pin *p, const char *text, size_t n, struct err *e);

/* Lines "PIN [name]". *pins is malloc'ed (NULL when there are none); file is the name in messages. */
int allow_parse(struct pin **pins, int *n_pins, const char *text, size_t n, const char *file, struct err *e);

/* Lines "HOST:PORT PIN". Looks through all of them; an address that stands there with two pins is an error. */
int known_parse(const char *address, struct pin *p, bool *found, const char *text, size_t n, const char *file,
                struct err *e);
/* Printable ASCII without blanks, "HOST:PORT", not too long. */
int address_check(const char *address, struct err *e);

#endif
