/* test/gpu/emu/memory.h - allocations of the emulated cards, and pinned ones: their bounds, and whether something was
 * written beyond them. */
#ifndef EMU_MEMORY_H
#define EMU_MEMORY_H

#include <cstddef>

namespace emu {

enum { HOST = 100 }; /* room HOST + i: pinned memory that card i's context gave */

/* NULL: none left here. The content is garbage. */
void *memory_alloc(int room, size_t bytes);
/* false: not such an allocation. Aborts when a kernel wrote beyond it. */
bool memory_free(int room, void *p);
/* Whether all bytes lie in one allocation. */
bool memory_holds(int room, const void *p, size_t bytes);
size_t memory_used(int room);
int memory_count(int room);

} // namespace emu

#endif
