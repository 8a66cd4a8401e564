// Where the host code of GPU programs hands over a kernel: a C interface, called from compiled code.
#pragma once

#include <cstdint>

#define PARC_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

// Runs a kernel, or asks a device to: 0, or a number that says what failed. `kernel` is the number in the program's list of
// kernels, `grid` and `block` the numbers of blocks and of threads in each, `shared_bytes` the dynamic shared memory of a
// block; all blocks of a `cooperative` launch are resident together. `argv` points to the `argc` fields of the kernel's
// arguments, 8 bytes each: index -> i64; memref -> allocated and aligned pointer, offset, sizes, strides.
typedef int (*parc_launcher)(void* context, int64_t kernel, int64_t grid, int64_t block, int64_t shared_bytes,
                             int64_t cooperative, void** argv, int64_t argc);

// Sets what the calling thread's launches go to (null: nowhere), and forgets a failure.
PARC_API void parc_set_launcher(parc_launcher launcher, void* context);

// A launch of host code. After one that failed, or without a launcher, it does nothing.
PARC_API void parc_launch(int64_t kernel, int64_t grid, int64_t block, int64_t shared_bytes, int64_t cooperative,
                          void** argv, int64_t argc);

// What the first launch that failed returned since the calling thread's launcher was set; 0 for none, -1 for none set.
PARC_API int parc_launch_failure(void);

#ifdef __cplusplus
}
#endif
