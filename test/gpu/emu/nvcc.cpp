#include "test/gpu/emu/nvcc.h"

#include <algorithm>
#include <cstdlib>
#include <dirent.h>
#include <fstream>
#include <sstream>

namespace emu {

/* The folder's files; they stay. */
static std::vector<ptx::module *> *read_folder(const char *path) {
    std::vector<ptx::module *> *modules = new std::vector<ptx::module *>();
    DIR *d = opendir(path);
    while (const dirent *e = d ? readdir(d) : nullptr) {
        std::string name = std::string(path) + "/" + e->d_name;
        if (name.size() < 4 || name.compare(name.size() - 4, 4, ".ptx") != 0)
            continue;
        std::stringstream text;
        text << std::ifstream(name).rdbuf();
        modules->push_back(new ptx::module(name, text.str()));
    }
    if (d)
        closedir(d);
    return modules;
}

cu_result nvcc_find(const kernel &k, const ptx::kernel **found) {
    const char *folder = getenv("EMU_PTX");
    *found = nullptr;
    if (!folder || !*folder)
        return 0;
    try {
        static std::vector<ptx::module *> *modules = read_folder(folder);
        for (size_t i = 0; i < modules->size() && !*found; i++)
            *found = (*modules)[i]->find(k.name);
    } catch (const ptx::bad_program &e) {
        return wrong(INVALID_PTX, "%s", e.what());
    }
    if (!*found)
        return wrong(NOT_FOUND, "no PTX in %s has kernel %s", folder, k.name);
    if ((*found)->param_bytes != k.arg_bytes)
        return wrong(INVALID_PTX, "kernel %s takes %zu bytes, and %zu as nvcc sees it", k.name, k.arg_bytes,
                     (*found)->param_bytes);
    if ((*found)->max_threads != k.threads)
        return wrong(INVALID_PTX, "kernel %s has blocks of up to %d threads, and %d as nvcc sees it", k.name, k.threads,
                     (*found)->max_threads);
    return 0;
}

bool nvcc_is_text(const void *image) {
    const char *text = (const char *)image;
    return text && (strncmp(text, "//", 2) == 0 || strncmp(text, ".version", 8) == 0);
}

std::shared_ptr<ptx::module> nvcc_load(const char *text) {
    try {
        std::shared_ptr<ptx::module> m(new ptx::module("PTX", text));
        for (const std::string &name : m->names())
            m->find(name);
        return m;
    } catch (const ptx::bad_program &e) {
        wrong(INVALID_PTX, "%s", e.what());
        return nullptr;
    }
}

/* What a card's memory holds, one range after the other. */
typedef std::vector<unsigned char> contents;

template <class F> static void each_range(const std::vector<ptx::range> &memory, contents &c, F f) {
    size_t at = 0;
    for (const ptx::range &r : memory) {
        f((unsigned char *)(uintptr_t)r.from, &c[at], r.bytes);
        at += r.bytes;
    }
}

static void count(const ptx::kernel &k, uint64_t n_executed) {
    const char *path = getenv("EMU_PTX_COUNTS");
    FILE *f = path ? fopen(path, "a") : nullptr;
    if (!f)
        return;
    fprintf(f, "%s %llu\n", k.name.c_str(), (unsigned long long)n_executed);
    fclose(f);
}

static cu_result run_ptx(const launch &l, const std::vector<ptx::range> &memory) {
    static uint64_t n_launches;
    const char *seed = getenv("EMU_SEED");
    std::string why;
    uint64_t n_executed = 0;
    ptx::launch p = {{l.grid.x, l.grid.y, l.grid.z},
                     l.threads,
                     l.shared,
                     l.arg.get(),
                     memory,
                     (seed ? strtoull(seed, nullptr, 10) : 0) + ++n_launches};
    ptx::error e = ptx::run(*l.ptx, p, &why, &n_executed);
    count(*l.ptx, n_executed);
    switch (e) {
    case ptx::error::none:
        return 0;
    case ptx::error::illegal_address:
        return wrong(ILLEGAL_ADDRESS, "%s", why.c_str());
    case ptx::error::misaligned_address:
        return wrong(MISALIGNED_ADDRESS, "%s: not aligned", why.c_str());
    case ptx::error::launch_failed:
        break;
    }
    return wrong(LAUNCH_FAILED, "%s", why.c_str());
}

/* Says where memory differs from what the C++ left there. */
static cu_result differs(const launch &l, const unsigned char *is, const unsigned char *should, size_t bytes) {
    size_t at = 0, n = 0;
    for (size_t i = bytes; i-- > 0;)
        if (is[i] != should[i]) {
            at = i - i % 4;
            n++;
        }
    uint32_t a = 0, b = 0;
    memcpy(&a, is + at, bytes - at < 4 ? bytes - at : 4);
    memcpy(&b, should + at, bytes - at < 4 ? bytes - at : 4);
    return wrong(LAUNCH_FAILED,
                 "kernel %s: PTX and C++ differ in %zu bytes of an allocation of %zu, the first at %zu: 0x%08x by PTX, "
                 "0x%08x by C++",
                 l.kernel->name, n, bytes, at, a, b);
}

/* The C++ goes first; its results change places with what was there before. */
cu_result nvcc_run(const CUctx_st *c, const launch &l) {
    static contents other; /* under the driver's lock; allocated once */
    std::vector<ptx::range> memory = memory_ranges(c->ordinal);
    if (!l.kernel || getenv("EMU_PTX_ALONE"))
        return run_ptx(l, memory);
    size_t total = 0;
    for (const ptx::range &r : memory)
        total += r.bytes;
    if (other.size() < total)
        other.resize(total);
    each_range(memory, other, [](unsigned char *p, unsigned char *q, size_t bytes) { memcpy(q, p, bytes); });
    run_kernel({*l.kernel, l.grid, l.threads, l.shared, l.arg.get(), l.overlaps}, nullptr);
    each_range(memory, other,
               [](unsigned char *p, unsigned char *q, size_t bytes) { std::swap_ranges(p, p + bytes, q); });
    cu_result r = run_ptx(l, memory);
    if (r == 0)
        each_range(memory, other, [&](unsigned char *p, unsigned char *q, size_t bytes) {
            if (r == 0 && memcmp(p, q, bytes) != 0)
                r = differs(l, p, q, bytes);
        });
    return r;
}

} // namespace emu
