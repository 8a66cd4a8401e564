// A warp's matrix product on fragments (PTX ISA, "Matrix multiply-accumulate operation using mma instruction").
#pragma once

#include <cstdint>

namespace parc {

constexpr int kWarp = 32;

// The types of the factors; sums are float.
enum class Factor : int64_t { f16, bf16, tf32 };

// What one lane brings: where its parts of A (16 x depth), B (depth x 8) and C (16 x 8) are, and that of the result.
struct Fragments {
  const void* a = nullptr;
  const void* b = nullptr;
  const float* c = nullptr;
  float* d = nullptr;
};

// D = A B + C for the 32 lanes of a warp. `depth` is 8 or 16 for halves, 4 or 8 for tf32.
void multiply(Factor factor, int64_t depth, const Fragments (&lanes)[kWarp]);

}  // namespace parc
