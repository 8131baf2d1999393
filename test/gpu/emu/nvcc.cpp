#include "test/gpu/emu/nvcc.h"

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

typedef std::vector<std::vector<unsigned char>> contents;

static contents copy_memory(const std::vector<ptx::range> &memory) {
    contents c;
    for (const ptx::range &r : memory)
        c.emplace_back((unsigned char *)(uintptr_t)r.from, (unsigned char *)(uintptr_t)r.from + r.bytes);
    return c;
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
    ptx::launch p = {{l.grid.x, l.grid.y, l.grid.z}, l.threads, l.shared, l.arg.get(), memory,
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

/* Says where the card's memory differs from what the C++ left there. */
static cu_result compare(const launch &l, const std::vector<ptx::range> &memory, const contents &before,
                         const contents &expected) {
    for (size_t i = 0; i < memory.size(); i++) {
        const unsigned char *p = (const unsigned char *)(uintptr_t)memory[i].from;
        if (memcmp(p, expected[i].data(), memory[i].bytes) == 0)
            continue;
        size_t at = 0, n = 0;
        for (size_t k = memory[i].bytes; k-- > 0;)
            if (p[k] != expected[i][k]) {
                at = k;
                n++;
            }
        at -= at % 4;
        uint32_t was = 0, is = 0, should = 0;
        size_t bytes = memory[i].bytes - at < 4 ? memory[i].bytes - at : 4;
        memcpy(&was, &before[i][at], bytes);
        memcpy(&is, p + at, bytes);
        memcpy(&should, &expected[i][at], bytes);
        return wrong(LAUNCH_FAILED,
                     "kernel %s: PTX and C++ differ in %zu bytes of an allocation of %zu, the first at %zu: 0x%08x became "
                     "0x%08x by PTX and 0x%08x by C++",
                     l.kernel->name, n, memory[i].bytes, at, was, is, should);
    }
    return 0;
}

cu_result nvcc_run(const CUctx_st *c, const launch &l) {
    std::vector<ptx::range> memory = memory_ranges(c->ordinal);
    if (!l.kernel || getenv("EMU_PTX_ALONE"))
        return run_ptx(l, memory);
    contents before = copy_memory(memory);
    run_kernel(*l.kernel, l.grid, l.threads, l.shared, l.arg.get());
    contents after = copy_memory(memory);
    for (size_t i = 0; i < memory.size(); i++)
        memcpy((void *)(uintptr_t)memory[i].from, before[i].data(), memory[i].bytes);
    cu_result r = run_ptx(l, memory);
    return r == 0 ? compare(l, memory, before, after) : r;
}

} // namespace emu
