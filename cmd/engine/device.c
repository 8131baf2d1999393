#include "cmd/engine/device.h"

#include "cmd/engine/engine.h"
#include "cmd/engine/memory.h"
#include "core/base/log.h"
#include "core/cpu/cpu.h"
#include "gpu/backend.h"
#include "gpu/gpu.h"
#include "net/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const device_choices[] = {"auto", "cpu", "cuda", NULL};
const char *const device_math_choices[] = {"full", "fast", NULL};

static bool card_asked_for(const struct engine_opts *o) {
    return o->backend == DEVICE_CUDA || (o->backend == DEVICE_AUTO && o->device);
}

static bool for_the_cpu(const struct engine_opts *o) {
    return wire_kv_type((uint8_t)o->kv) == DT_F32;
}

static int check(const struct engine_opts *o, struct err *e) {
    if (!card_asked_for(o))
        return 0;
    if (o->isa)
        return err_set(e, ERR_USAGE, "--isa %s is for the CPU: it does not go with --backend cuda or --device",
                       engine_isa_name(o->isa));
    if (for_the_cpu(o))
        return err_set(e, ERR_USAGE,
                       "--kv f32 is for the CPU: on a card the KV cache holds f16 or fp8. Take --kv f16, or --backend "
                       "cpu");
    return 0;
}

int device_open(struct backend **out, const struct engine_opts *o, struct err *e) {
    *out = NULL;
    if (check(o, e) != 0)
        return -1;
    bool asked = card_asked_for(o);
    if (asked || (o->backend == DEVICE_AUTO && !o->isa && !for_the_cpu(o))) {
        struct err why = {0};
        struct cuda_opts cuda = {.devices = o->device, .fast = o->math == MATH_FAST};
        if (backend_cuda_create(out, &cuda, &why) == 0) {
            log_line(LOG_INFO, "computing on %s", backend_cuda_describe(*out));
            return 0;
        }
        if (asked) {
            err_set(e, why.kind, "%s", why.msg);
            return why.kind == ERR_USAGE ? -1 : err_wrap(e, "--backend cuda");
        }
        /* A machine with NVIDIA's driver is one whose card was to be used. */
        log_line(gpu_built() && driver_there() ? LOG_WARN : LOG_INFO,
                 "computing on the CPU, for there is no card to be used: %s", why.msg);
    }
    if (backend_cpu_create(out, o->threads, engine_isa_name(o->isa), e) != 0)
        return -1;
    if (o->math == MATH_FAST)
        backend_cpu_round(*out);
    return 0;
}

int device_check_kv(const struct backend *b, const struct engine_opts *o, struct err *e) {
    if (wire_kv_type((uint8_t)o->kv) != DT_E4M3 || device_is_card(b))
        return 0;
    return err_set(
        e, ERR_USAGE,
        "--kv fp8 halves the KV cache of a card; on the CPU it would save nothing. Take --kv f16, or --backend "
        "cuda");
}

bool device_is_card(const struct backend *b) {
    return strcmp(b->ops->name, "cpu") != 0;
}

int device_first(const struct engine_opts *o) {
    return o->device ? (int)strtol(o->device, NULL, 10) : 0; /* backend_cuda_create has accepted it */
}

int device_joined(const struct engine_opts *o) {
    int n = 1;
    for (const char *at = o->device ? o->device : ""; *at && *at != ','; at++)
        n += *at == '+';
    return n;
}

const char *device_name(const struct backend *b, const struct engine_opts *o) {
    static char name[32];
    if (device_is_card(b))
        return backend_cuda_name(b);
    snprintf(name, sizeof name, "cpu-%s%s", o->isa ? engine_isa_name(o->isa) : cpu_isa_list()[0],
             o->math == MATH_FAST ? "-fast" : "");
    return name;
}

uint64_t device_memory(const struct backend *b, uint64_t asked, const char **is) {
    bool card = device_is_card(b);
    *is = asked ? "is what --memory allows" : card ? "is free there" : "is what is available";
    return asked ? asked : card ? backend_cuda_memory_left(b) : memory_available();
}

const char *device_memory_name(const struct backend *b) {
    return device_is_card(b) ? "of the card's memory" : "of memory";
}
