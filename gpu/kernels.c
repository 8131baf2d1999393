#include "gpu/kernel_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The Makefile names a list of IMAGE(name, file) lines, one for each .cu file, where nvcc was at hand. */
#ifdef GPU_IMAGES
#define IMAGE(name, file)                                                                                              \
    __asm__(".pushsection .rodata, \"a\"\n"                                                                            \
            ".balign 64\n"                                                                                             \
            "gpu_image_" #name ":\n"                                                                                   \
            ".incbin \"" file "\"\n"                                                                                   \
            ".popsection\n");                                                                                          \
    extern const unsigned char gpu_image_##name[] __attribute__((visibility("hidden")));
#include GPU_IMAGES
#undef IMAGE
#else
#define GPU_BUILT_FOR ""
#endif

static const struct {
    const char *name;
    const void *fatbin;
} images[] = {
#ifdef GPU_IMAGES
#define IMAGE(name, file) {#name, gpu_image_##name},
#include GPU_IMAGES
#undef IMAGE
#endif
    {NULL, NULL},
};
_Static_assert(sizeof images / sizeof *images <= GPU_MAX_IMAGES + 1, "raise GPU_MAX_IMAGES");

static const char *const names[] = {
#define KERNEL_NAME(name) #name,
    GPU_KERNELS(KERNEL_NAME)
#undef KERNEL_NAME
        NULL};

const char *kernel_name(int kernel) {
    return names[kernel];
}

bool gpu_built(void) {
    return images[0].name != NULL;
}

const char *gpu_built_for(void) {
    return GPU_BUILT_FOR;
}

/* 13000 of "... by nvcc 13.0", as drivers count. */
static int nvcc_version(const char *built_for) {
    const char *at = strstr(built_for, "nvcc ");
    char *end;
    if (!at)
        return 0;
    long major = strtol(at + strlen("nvcc "), &end, 10), minor = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
    return (int)(major * 1000 + minor * 10);
}

int gpu_tell_unloadable(const struct gpu *g, cu_result r, const char *name, const char *built_for, struct err *e) {
    char why[DRIVER_WHY];
    int driver = 0, nvcc = nvcc_version(built_for);
    if (!*built_for)
        return err_set(e, ERR_DEVICE,
                       "this program was built without GPU kernels: build it where nvcc of the CUDA toolkit is "
                       "(./build.sh looks in PATH and in /usr/local/cuda, or takes NVCC=/path/to/nvcc)");
    /* Code of a later toolkit is to a driver a broken image, PTX that it does not know, or nothing for its card. */
    if (r != CU_OUT_OF_MEMORY && g->major >= 8 && g->driver->driver_version(&driver) == 0 && driver < nvcc)
        return err_set(e, ERR_DEVICE,
                       "the NVIDIA driver here is for CUDA %d.%d, and the kernels were built by nvcc %d.%d: install a "
                       "driver for CUDA %d.%d or later%s, or build with the toolkit of CUDA %d.%d or before (%s)",
                       driver / 1000, driver % 1000 / 10, nvcc / 1000, nvcc % 1000 / 10, nvcc / 1000, nvcc % 1000 / 10,
                       nvcc / 1000 == 13 ? " (number 580 or higher)" : "", driver / 1000, driver % 1000 / 10,
                       driver_error(g->driver, r, why, sizeof why));
    if (r == CU_NO_BINARY_FOR_GPU)
        return err_set(e, ERR_DEVICE,
                       "%s has compute capability %d.%d, and the kernels here were built for %s: a card of 8.0 or "
                       "later is needed, or a build with GPU_ARCHS=%d%d",
                       g->name, g->major, g->minor, built_for, g->major, g->minor);
    return err_set(e, r == CU_OUT_OF_MEMORY ? ERR_MEMORY : ERR_DEVICE,
                   "the kernels of %s (%s) cannot be loaded by this driver: %s", name, built_for,
                   driver_error(g->driver, r, why, sizeof why));
}

static int load_image(struct gpu *g, const char *name, const void *fatbin, struct err *e) {
    struct gpu_kernels *k = g->kernels;
    cu_result r = g->driver->module_load(&k->modules[k->n_modules], fatbin);
    if (r != 0)
        return gpu_tell_unloadable(g, r, name, gpu_built_for(), e);
    k->n_modules++;
    return 0;
}

/* Several images: whichever has it. Drivers bring a kernel's code to the card now, and not with its image, unless
 * CUDA_MODULE_LOADING says otherwise. */
static int find(struct gpu *g, int kernel, struct err *e) {
    struct gpu_kernels *k = g->kernels;
    for (int i = 0; i < k->n_modules; i++) {
        cu_result r = g->driver->module_function(&k->functions[kernel], k->modules[i], names[kernel]);
        if (r == CU_NOT_FOUND)
            continue;
        if (r != 0)
            return gpu_tell_unloadable(g, r, names[kernel], gpu_built_for(), e);
        /* Code that came by way of older PTX does not wait, on whatever card: only the driver knows which it took. */
        int ptx = 0;
        k->awaits[kernel] =
            g->overlaps && g->driver->function_get(&ptx, CU_FUNC_PTX_VERSION, k->functions[kernel]) == 0 && ptx >= 90;
        return 0;
    }
    return err_set(e, ERR_DEVICE, "there is no GPU kernel %s: the build was not complete", names[kernel]);
}

int gpu_kernels_load(struct gpu *g, struct err *e) {
    int rc = 0;
    g->kernels = calloc(1, sizeof *g->kernels);
    if (!g->kernels)
        return err_set(e, ERR_MEMORY, "out of memory");
    if (!gpu_built())
        rc = load_image(g, NULL, NULL, e);
    for (int i = 0; images[i].name && rc == 0; i++)
        rc = load_image(g, images[i].name, images[i].fatbin, e);
    for (int i = 0; i < N_KERNELS && rc == 0; i++)
        rc = find(g, i, e);
    if (rc != 0)
        gpu_kernels_free(g);
    return rc;
}

void gpu_kernels_free(struct gpu *g) {
    if (!g->kernels)
        return;
    for (int i = 0; i < g->kernels->n_modules; i++)
        (void)g->driver->module_unload(g->kernels->modules[i]);
    free(g->kernels);
    g->kernels = NULL;
}
