// What LLVM calls to round to bfloat16 on CPUs without such instructions, and older compilers' libraries do not have.

#include <cstdint>
#include <cstring>

// The number is in the low half of the register that a result is returned in, as a bfloat16 would be.
extern "C" __attribute__((visibility("default"))) float __truncsfbf2(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  // Ties go to the even one; a NaN stays one.
  const uint32_t rounded = value != value ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  float result;
  std::memcpy(&result, &rounded, sizeof result);
  return result;
}
