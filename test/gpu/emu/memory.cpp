#include "test/gpu/emu/memory.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace emu {

/* AddressSanitizer sees an access beyond an allocation when it happens. Without it, known bytes before and behind show
 * a write when the memory is freed. */
#ifdef EMU_ASAN
static const size_t margin = 0;
#else
static const size_t margin = 256;
#endif
static const unsigned char mark = 0xd7;
static const uint16_t garbage = 0x7fc1;

static std::map<uintptr_t, size_t> rooms[2 * MAX_DEVICES];
static size_t used[2 * MAX_DEVICES];

#ifdef EMU_ASAN
static int entered = -1;

void memory_enter(int room) {
    if (room == entered)
        return;
    for (int i = 0; i < MAX_DEVICES; i++)
        for (const auto &a : rooms[i])
            if (i == room)
                ASAN_UNPOISON_MEMORY_REGION((void *)a.first, a.second);
            else if (i == entered || entered < 0)
                ASAN_POISON_MEMORY_REGION((void *)a.first, a.second);
    entered = room;
}
#else
void memory_enter(int) {
}
#endif

void *memory_alloc(int room, size_t bytes) {
    void *p;
    if (room < HOST)
        memory_enter(room);
    if (bytes > SIZE_MAX - 2 * margin || posix_memalign(&p, 256, bytes + 2 * margin) != 0)
        return nullptr;
    char *start = (char *)p + margin;
    memset(p, mark, margin);
    memset(start + bytes, mark, margin);
    for (size_t i = 0; i + sizeof garbage <= bytes; i += sizeof garbage)
        memcpy(start + i, &garbage, sizeof garbage);
    rooms[room][(uintptr_t)start] = bytes;
    used[room] += bytes;
    return start;
}

static void check_margin(const unsigned char *p, const char *side, size_t bytes) {
    for (size_t i = 0; i < margin; i++)
        if (p[i] != mark) {
            fprintf(stderr, "emulated card: something was written %s an allocation of %zu bytes\n", side, bytes);
            abort();
        }
}

bool memory_free(int room, void *p) {
    auto at = rooms[room].find((uintptr_t)p);
    if (at == rooms[room].end())
        return false;
    if (room < HOST)
        memory_enter(room);
    size_t bytes = at->second;
    unsigned char *start = (unsigned char *)p;
    check_margin(start - margin, "before", bytes);
    check_margin(start + bytes, "behind", bytes);
    used[room] -= bytes;
    rooms[room].erase(at);
    free(start - margin);
    return true;
}

void memory_clear(int room) {
    while (!rooms[room].empty())
        memory_free(room, (void *)rooms[room].begin()->first);
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

/* Four chains at a time, as one multiplication waits for the other. */
uint64_t memory_digest(int room) {
    uint64_t h[4] = {1, 2, 3, 4};
    for (const auto &a : rooms[room]) {
        const char *p = (const char *)a.first;
        size_t i = 0;
        for (uint64_t w[4]; i + sizeof w <= a.second; i += sizeof w) {
            memcpy(w, p + i, sizeof w);
            for (int j = 0; j < 4; j++)
                h[j] = (h[j] ^ w[j]) * 0x9e3779b97f4a7c15ull;
        }
        for (; i < a.second; i++)
            h[0] = (h[0] ^ (unsigned char)p[i]) * 0x9e3779b97f4a7c15ull;
    }
    return h[0] + 3 * h[1] + 5 * h[2] + 7 * h[3];
}

int memory_count(int room) {
    return (int)rooms[room].size();
}

} // namespace emu
