#include "core/cpu/cpu.h"

#include "core/base/wipe.h"
#include "core/cpu/isa.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

enum { N_ISA = 3 };

#if defined(__x86_64__)
/* Clang 14 does not know the name f16c in __builtin_cpu_supports. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

static int usable_isas(const struct cpu_isa *out[N_ISA]) {
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init(); /* looks at CPUID and at what the system saves (XCR0) */
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        out[n++] = &cpu_isa_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
        out[n++] = &cpu_isa_avx2;
#elif defined(__aarch64__)
    out[n++] = &cpu_isa_neon;
#endif
    out[n++] = &cpu_isa_portable;
    return n;
}

const char *const *cpu_isa_list(void) {
    static const char *names[N_ISA + 1];
    const struct cpu_isa *isas[N_ISA];
    int n = usable_isas(isas);
    for (int i = 0; i < n; i++)
        names[i] = isas[i]->name;
    return names;
}

int cpu_init(struct cpu *c, int n_threads, const char *isa, struct err *e) {
    memset(c, 0, sizeof *c);
    const struct cpu_isa *isas[N_ISA];
    int n = usable_isas(isas);
    for (int i = 0; i < n && !c->isa; i++)
        if (!isa || strcmp(isa, isas[i]->name) == 0)
            c->isa = isas[i];
    if (!c->isa)
        return err_set(e, ERR_USAGE, "this machine or build has no instruction set \"%s\"; the best it has is %s", isa,
                       isas[0]->name);
    return pool_create(&c->pool, n_threads, e);
}

void cpu_free(struct cpu *c) {
    pool_free(c->pool);
    wipe_free(c->scratch, c->scratch_bytes);
    free(c->panels);
    memset(c, 0, sizeof *c);
}

const char *cpu_isa_name(const struct cpu *c) {
    return c->isa->name;
}

int cpu_reserve(struct cpu *c, size_t bytes, struct err *e) {
    if (bytes <= c->scratch_bytes)
        return 0;
    size_t huge = (size_t)2 << 20;
    size_t rounded = (bytes + huge - 1) / huge * huge;
    void *p = rounded >= bytes ? aligned_alloc(huge, rounded) : NULL;
    if (!p)
        return err_set(e, ERR_MEMORY, "out of memory for %zu MB of scratch; lower the context or the rows per pass",
                       bytes >> 20);
    madvise(p, rounded, MADV_HUGEPAGE);
    wipe_free(c->scratch, c->scratch_bytes);
    c->scratch = p;
    c->scratch_bytes = rounded;
    return 0;
}
