#include "test/gpu/emu/memory.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace emu {

/* AddressSanitizer sees an access beyond an allocation when it happens. Without it, known bytes before and behind show
 * a write when the memory is freed. */
#if defined(__SANITIZE_ADDRESS__)
static const size_t margin = 0;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
static const size_t margin = 0;
#else
static const size_t margin = 256;
#endif
#else
static const size_t margin = 256;
#endif

static std::map<uintptr_t, size_t> rooms[2 * HOST];
static size_t used[2 * HOST];

enum { MARK = 0xd7, GARBAGE = 0xc1 };

void *memory_alloc(int room, size_t bytes) {
    void *p;
    if (bytes > SIZE_MAX - 2 * margin || posix_memalign(&p, 256, bytes + 2 * margin) != 0)
        return nullptr;
    char *start = (char *)p + margin;
    memset(p, MARK, margin);
    memset(start, GARBAGE, bytes);
    memset(start + bytes, MARK, margin);
    rooms[room][(uintptr_t)start] = bytes;
    used[room] += bytes;
    return start;
}

static void check_margin(const unsigned char *p, const char *side, size_t bytes) {
    for (size_t i = 0; i < margin; i++)
        if (p[i] != MARK) {
            fprintf(stderr, "emulated card: something was written %s an allocation of %zu bytes\n", side, bytes);
            abort();
        }
}

bool memory_free(int room, void *p) {
    auto at = rooms[room].find((uintptr_t)p);
    if (at == rooms[room].end())
        return false;
    size_t bytes = at->second;
    unsigned char *start = (unsigned char *)p;
    check_margin(start - margin, "before", bytes);
    check_margin(start + bytes, "behind", bytes);
    used[room] -= bytes;
    rooms[room].erase(at);
    free(start - margin);
    return true;
}

bool memory_holds(int room, const void *p, size_t bytes) {
    auto at = rooms[room].upper_bound((uintptr_t)p);
    if (at == rooms[room].begin())
        return false;
    --at;
    size_t from = (uintptr_t)p - at->first;
    return from <= at->second && at->second - from >= bytes;
}

size_t memory_used(int room) {
    return used[room];
}

int memory_count(int room) {
    return (int)rooms[room].size();
}

} // namespace emu
