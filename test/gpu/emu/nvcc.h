/* test/gpu/emu/nvcc.h - kernels as nvcc compiles them: PTX, which test/gpu/ptx executes.
 *
 *   EMU_PTX=FOLDER        kernels run from the PTX there (NAME.ptx of each .cu file). Each launch is done twice, by the
 *                         compiled C++ as well, and what they leave in the card's memory must be the same, bit for bit
 *   EMU_PTX_ALONE=1       without the C++
 *   EMU_PTX_COUNTS=FILE   what was executed: a line with the kernel's name and instructions for each launch */
#ifndef EMU_NVCC_H
#define EMU_NVCC_H

#include "test/gpu/emu/libcuda.h"

namespace emu {

/* The PTX of a kernel of the library, in *found; nullptr there: C++ alone shall run. Not 0: it is not among the PTX, or
 * differs from the C++ in what a launch must know. */
cu_result nvcc_find(const kernel &k, const ptx::kernel **found);
/* Whether an image is the text of a program; then its module. */
bool nvcc_is_text(const void *image);
std::shared_ptr<ptx::module> nvcc_load(const char *text);
/* What the launch makes of its card. */
cu_result nvcc_run(const CUctx_st *c, const launch &l);

} // namespace emu

#endif
