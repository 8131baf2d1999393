#include "gpu/driver.h"

#include "gpu/library.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct driver opened;
static struct err failure; /* empty: opened is complete */

static const char *library_name(void) {
    const char *other = getenv("SPLITINF_LIBCUDA");
    return other && *other ? other : "libcuda.so.1";
}

/* "13.0" of 13000. */
static void say_version(char *buf, size_t n) {
    int v = 0;
    if (opened.driver_version && opened.driver_version(&v) == 0)
        snprintf(buf, n, "%d.%d", v / 1000, v % 1000 / 10);
    else
        snprintf(buf, n, "unknown");
}

static int find_functions(struct err *e) {
    const char *missing = NULL;
    /* Through memcpy, as C has no conversion from an object's pointer to a function's. */
#define FIND(name, field, params)                                                                                      \
    {                                                                                                                  \
        void *f = library_function(opened.library, #name);                                                             \
        memcpy(&opened.field, &f, sizeof f);                                                                           \
        if (!f && !missing)                                                                                            \
            missing = #name;                                                                                           \
    }
    DRIVER_FUNCTIONS(FIND)
#undef FIND
    if (!missing)
        return 0;
    char version[32];
    say_version(version, sizeof version);
    return err_set(e, ERR_DEVICE,
                   "the NVIDIA driver here is too old: %s has no %s (it supports CUDA %s, 12.0 or later is needed); "
                   "install a newer driver, or use --backend cpu",
                   library_name(), missing, version);
}

static int start(struct err *e) {
    char why[DRIVER_WHY], version[32];
    int n = 0;
    (void)setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0); /* --device counts as nvidia-smi does */
    cu_result r = opened.init(0);
    say_version(version, sizeof version);
    if (r == 0)
        r = opened.device_count(&n);
    if (r == CU_NO_DEVICE || (r == 0 && n == 0)) {
        const char *visible = getenv("CUDA_VISIBLE_DEVICES");
        return err_set(
            e, ERR_DEVICE,
            "there is an NVIDIA driver (CUDA %s) but no card that this process may use%s%.60s%s: check "
            "nvidia-smi -L; a container is started with --gpus all, and a card with MIG on needs an instance",
            version, visible ? "; CUDA_VISIBLE_DEVICES is \"" : "", visible ? visible : "",
            visible ? "\", which may hide it" : "");
    }
    if (r != 0)
        return err_set(e, ERR_DEVICE, "the NVIDIA driver (CUDA %s) does not start: %s", version,
                       driver_error(&opened, r, why, sizeof why));
    return 0;
}

static void open_once(void) {
    const char *names[] = {library_name(), NULL};
    opened.library = library_open(names, &failure);
    if (!opened.library) {
        err_wrap(&failure, "no NVIDIA driver here");
        return;
    }
    if (find_functions(&failure) == 0)
        (void)start(&failure);
    /* The library stays: NVIDIA's has threads of its own once it has started. */
}

const struct driver *driver_open(struct err *e) {
    pthread_once(&once, open_once);
    if (failure.kind != ERR_NONE) {
        err_set(e, failure.kind, "%s", failure.msg);
        return NULL;
    }
    return &opened;
}

bool driver_there(void) {
    pthread_once(&once, open_once);
    return opened.library != NULL;
}

/* What a person can do about results that are a machine's and not the program's; NULL: nothing is known. */
static const char *advice(cu_result r) {
    static const struct {
        cu_result r;
        const char *text;
    } known[] = {
        {34, "the libcuda that was found is the toolkit's stub: take its folder out of LD_LIBRARY_PATH"},
        {46, "another process has the card, whose compute mode is exclusive: end that one, or nvidia-smi -c 0"},
        {101, "what CUDA_VISIBLE_DEVICES names must be in nvidia-smi -L"},
        {214, "the card's memory is damaged: nvidia-smi -q -d ECC; reset the card or take another one"},
        {220, "a link between cards is damaged: nvidia-smi nvlink -e; reset the cards or take others"},
        {304, "may this process use /dev/nvidia*? A container is started with --gpus all"},
        {702, "a card that drives a display ends what takes seconds: take another one, or smaller passes"},
        {802, "on a machine with NVSwitch, nvidia-fabricmanager of the driver's version must run"},
        {803, "libcuda and the kernel's driver are of different versions: reboot after an update; a container must use "
              "the libcuda of its host"},
        {804, "only data centre cards take libcuda of the cuda-compat package: take its folder out of LD_LIBRARY_PATH"},
        {805, "nvidia-cuda-mps-control does not answer: start it, or unset CUDA_MPS_PIPE_DIRECTORY"},
        {999,
         "is the kernel module there? nvidia-modprobe -u, or a reboot after an update; a container is started with "
         "--gpus all"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].r == r)
            return known[i].text;
    return NULL;
}

const char *driver_error(const struct driver *d, cu_result r, char *buf, size_t n) {
    const char *name = NULL, *text = NULL, *what_to_do = advice(r);
    if (d->error_name(r, &name) != 0 || d->error_string(r, &text) != 0 || !name || !text)
        snprintf(buf, n, "CUDA error %d%s%s", r, what_to_do ? "; " : "", what_to_do ? what_to_do : "");
    else
        snprintf(buf, n, "%s: %s%s%s", name, text, what_to_do ? "; " : "", what_to_do ? what_to_do : "");
    return buf;
}
