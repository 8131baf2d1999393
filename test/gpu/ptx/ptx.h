/* test/gpu/ptx/ptx.h - executes the PTX that nvcc makes of kernels, on memory of this machine: for the emulated driver.
 *
 * It takes what our kernels contain, with the meaning that the PTX manual gives it; anything else is an error when the
 * kernel is loaded. Floating point is exact to rounding where the manual allows an error (ex2.approx); mma sums in the
 * order of k, rounding each product and sum to f32, as the emulated card does. It is stricter than a card: besides what
 * a card answers with an error (addresses that are none or not aligned), it finds shared memory that is read before it
 * is written or without a barrier between, copies that nobody has waited for, ld.global.nc of what the kernel writes,
 * and barriers that not all threads come to. */
#ifndef PTX_PTX_H
#define PTX_PTX_H

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ptx {

struct kernel;

enum class error { none, illegal_address, misaligned_address, launch_failed };

struct range {
    uint64_t from;
    size_t bytes;
};

struct launch {
    int grid[3];
    int threads;
    size_t shared; /* dynamic */
    const void *arg;
    std::vector<range> memory; /* the card's, by address */
    uint64_t seed;             /* of the order of blocks and warps */
};

/* Runs a grid to its end or to its first fault; then why says what happened, where. n_executed: instructions of warps.
 */
error run(const kernel &k, const launch &l, std::string *why, uint64_t *n_executed);

} // namespace ptx

#endif
