// Runs the kernels of a GPU program on the calling thread of the host, and checks what they do: a C interface, called
// from Python and, below, from the emulated code (passes/emulate_gpu.py).
#pragma once

#include <cstdint>

#include "launch.h"

#ifdef __cplusplus
extern "C" {
#endif

// What can be wrong; `runtime/emulator.py` has the same list.
enum parc_emulation_kind {
  PARC_EMULATION_OK,
  PARC_EMULATION_RACE,
  PARC_EMULATION_DIVERGENCE,
  PARC_EMULATION_DEADLOCK,
  PARC_EMULATION_INDEX,
  PARC_EMULATION_ADDRESS,
  PARC_EMULATION_MISALIGNED,
  PARC_EMULATION_UNSET,
  PARC_EMULATION_PARTIAL_WARP,
  PARC_EMULATION_LAUNCH,
  PARC_EMULATION_MEMORY,
};

// Where an access is when it is not in an argument, which has a number: in shared memory, nowhere, or in a constant.
enum parc_emulation_place { PARC_PLACE_SHARED = -1, PARC_PLACE_UNKNOWN = -2, PARC_PLACE_CONSTANT = -3 };

// The first error of a launch. Sites are numbers in the program's list of them; -1 is that of a thread that has ended.
typedef struct {
  int64_t kind;
  int64_t kernel;
  int64_t site, block, thread;                    // who
  int64_t other_site, other_block, other_thread;  // and with whom; block -1 for nobody
  int64_t place, offset, bytes;                   // what memory: offset from the start of the place
  int64_t extent;                                 // of the place in bytes, or of the dimension
  int64_t dimension, index, lanes;                // of a memref: `lanes` elements from `index`
} parc_emulation_error;

typedef struct {
  int64_t seed;         // 0: threads take turns in order; others try other orders, and other ends of turns
  int64_t check_races;  // whether to look for races and for reads of unset shared memory
} parc_emulation_settings;

// An emulator of one program, whose kernels are the `count` packed functions `kernels`; null without memory. It serves
// one thread at a time.
PARC_API void* parc_emulator_create(void (**kernels)(void**), int64_t count);
PARC_API void parc_emulator_destroy(void* emulator);

// What the following launches are to do.
PARC_API void parc_emulator_configure(void* emulator, const parc_emulation_settings* settings);

// The first error since the last call of this function.
PARC_API parc_emulation_error parc_emulator_take_error(void* emulator);

// A `parc_launcher`, with the emulator as its context: runs all threads of a launch; returns the kind of its error.
PARC_API int parc_emulate(void* emulator, int64_t kernel, int64_t grid, int64_t block, int64_t shared_bytes,
                          int64_t cooperative, void** argv, int64_t argc);

// Called by emulated code. Those that find an error do not return.

PARC_API int64_t parc_emulated_thread(void);
PARC_API int64_t parc_emulated_block(void);
PARC_API int64_t parc_emulated_block_size(void);
PARC_API int64_t parc_emulated_grid_size(void);

// The argument with this number is a buffer in global memory; PARC_PLACE_CONSTANT is for constants of the program.
PARC_API void parc_emulated_buffer(int64_t pointer, int64_t bytes, int64_t argument);

// Shared memory of the block: what the launch asked for, and arrays of the kernel's own, by number.
typedef struct {
  char *allocated, *aligned;
  int64_t offset, size, stride;
} parc_memref;
PARC_API void _mlir_ciface_parc_emulated_dynamic_shared(parc_memref* result);
PARC_API void _mlir_ciface_parc_emulated_static_shared(parc_memref* result, int64_t number, int64_t bytes);

// Before an access: `lanes` elements from `index` are inside a dimension; or those of the bits in `mask`.
PARC_API void parc_emulated_index(int64_t index, int64_t lanes, int64_t extent, int64_t dimension, int64_t site);
PARC_API void parc_emulated_masked_index(int64_t index, int64_t mask, int64_t extent, int64_t dimension, int64_t site);

// Before a plain access to memory that may be shared: of bytes, or of the lanes of `bytes` each of the bits in `mask`.
PARC_API void parc_emulated_access(int64_t address, int64_t bytes, int64_t alignment, int64_t write, int64_t site);
PARC_API void parc_emulated_masked_access(int64_t address, int64_t bytes, int64_t alignment, int64_t mask,
                                          int64_t write, int64_t site);

// Before an atomic access: it reads, writes or both (bits 1 and 2), acquires, releases or both (bits 1 and 2), for the
// threads of the block (1) or of the device (2).
PARC_API void parc_emulated_atomic(int64_t address, int64_t bytes, int64_t mode, int64_t ordering, int64_t scope,
                                   int64_t site);

// All threads of the block, or of the warp, must come here.
PARC_API void parc_emulated_barrier(int64_t site);
PARC_API void parc_emulated_warp_barrier(int64_t site);

// The value of another lane; mode 0 xor, 1 up, 2 down, 3 idx. Whether there was such a lane is asked for afterwards.
PARC_API int64_t parc_emulated_shuffle(int64_t value, int64_t offset, int64_t width, int64_t mode, int64_t site);
PARC_API int64_t parc_emulated_shuffle_valid(void);

// D = A B + C (fragments.h): addresses of the lane's fragments, the type of the factors and the extent of k.
PARC_API void parc_emulated_mma(int64_t a, int64_t b, int64_t c, int64_t d, int64_t factor, int64_t depth,
                                int64_t site);

#ifdef __cplusplus
}
#endif
