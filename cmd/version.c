#include "cmd/version.h"

#include "core/cpu/cpu.h"
#include "gpu/kernel_list.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <histedit.h>
#include <mbedtls/version.h>
#include <pcre2.h>
#include <utf8proc.h>
#include <yyjson.h>

#ifndef SPLITINF_VERSION
#define SPLITINF_VERSION "unknown"
#endif
#ifndef SPLITINF_COMMIT
#define SPLITINF_COMMIT "unknown"
#endif

const char *version_string(void) {
    return SPLITINF_VERSION;
}

void version_print(FILE *f) {
    char pcre[64] = "unknown", mbedtls[18];
    if (pcre2_config(PCRE2_CONFIG_VERSION, NULL) < (int)sizeof pcre)
        pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    mbedtls_version_get_string_full(mbedtls);
    fprintf(f, "splitinf %s (commit %s)\n", SPLITINF_VERSION, SPLITINF_COMMIT);
    if (gpu_built())
        fprintf(f, "backends: cpu, cuda (kernels for %s)\n", gpu_built_for());
    else
        fprintf(f, "backends: cpu; built without GPU kernels\n");
    fprintf(f, "instruction sets that this machine can run:");
    const char *const *isa = cpu_isa_list();
    for (int i = 0; isa[i]; i++)
        fprintf(f, " %s%s", isa[i], i == 0 ? " (used)" : "");
    fprintf(f, "\nlibraries: %s, yyjson %s, PCRE2 %s, utf8proc %s, libedit %d.%d\n", mbedtls, YYJSON_VERSION_STRING,
            pcre, utf8proc_version(), LIBEDIT_MAJOR, LIBEDIT_MINOR);
}
