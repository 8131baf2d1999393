/* Fuzzes core/base/buf.c's reader: the cursor that every parser of untrusted bytes stands on. The input is a list of
 * operations over itself; no sequence of them may read outside or leave the cursor past the end. */
#include "core/base/buf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct rbuf r = rbuf_of(data, size);
    uint8_t sum = 0;
    while (!r.bad && rbuf_left(&r) > 0) {
        uint8_t op = rbuf_u8(&r);
        const uint8_t *p;
        size_t n;
        switch (op % 8) {
        case 0:
            sum ^= (uint8_t)rbuf_u16(&r);
            break;
        case 1:
            sum ^= (uint8_t)rbuf_u32(&r);
            break;
        case 2:
            sum ^= (uint8_t)rbuf_u64(&r);
            break;
        case 3:
            sum ^= rbuf_f32(&r) > 0;
            break;
        case 4:
            sum ^= rbuf_f64(&r) > 0;
            break;
        case 5:
            rbuf_skip(&r, rbuf_u64(&r));
            break;
        default:
            n = rbuf_u16(&r);
            p = rbuf_bytes(&r, n);
            for (size_t i = 0; p && i < n; i++)
                sum ^= p[i];
        }
        if (r.off > r.n)
            abort();
    }
    (void)sum;
    return 0;
}
