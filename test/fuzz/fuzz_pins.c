/* Fuzzes the text files of pins: allow lists and known clouds. The first byte says how much of the input is the address
 * that is looked for. */
#include "net/pin_list.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct pin *pins, p;
    int n;
    bool found;
    struct err e = {0};
    char address[ADDRESS_MAX + 2] = {0}, text[PIN_TEXT];
    if (allow_parse(&pins, &n, (const char *)data, size, "fuzz", &e) == 0) {
        for (int i = 0; i < n; i++) { /* what was taken has one text, which gives it again */
            pin_format(&pins[i], text);
            if (pin_parse(&p, text, &e) != 0 || !pin_equal(&p, &pins[i]))
                abort();
        }
        free(pins);
    } else if (e.kind == ERR_NONE) {
        abort();
    }
    if (size < 1)
        return 0;
    size_t len = data[0];
    data++;
    size--;
    if (len > size)
        len = size;
    memcpy(address, data, len);
    e = (struct err){0};
    if (address_check(address, &e) == 0)
        known_parse(address, &p, &found, (const char *)data + len, size - len, "fuzz", &e);
    return 0;
}
