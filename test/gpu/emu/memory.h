/* test/gpu/emu/memory.h - allocations of the emulated cards, and pinned ones: their bounds, whether something was
 * written beyond them, and (with AddressSanitizer) whether a kernel of one card touches another's. */
#ifndef EMU_MEMORY_H
#define EMU_MEMORY_H

#include <cstddef>
#include <cstdint>

namespace emu {

enum { MAX_DEVICES = 8, HOST = MAX_DEVICES }; /* room i: card i; HOST + i: pinned memory that its context gave */

/* NULL: none left here. The content is not a number in any format. */
void *memory_alloc(int room, size_t bytes);
/* false: not such an allocation. Aborts when a kernel wrote beyond it. */
bool memory_free(int room, void *p);
/* Frees what is left. */
void memory_clear(int room);
/* Whether all bytes lie in one allocation. */
bool memory_holds(int room, const void *p, size_t bytes);
size_t memory_used(int room);
int memory_count(int room);
/* A number that changes, almost certainly, when anything in a room does. */
uint64_t memory_digest(int room);

/* Until the next call, other cards' memory must not be touched. */
void memory_enter(int room);

} // namespace emu

#endif
