#include "fragments.h"

#include <cmath>
#include <cstring>

namespace parc {
namespace {

constexpr int kRows = 16, kColumns = 8, kMaxDepth = 16;

float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float from_half(uint16_t half) {
  const uint32_t sign = uint32_t{half} >> 15 << 31, exponent = half >> 10 & 31, fraction = half & 1023;
  if (exponent == 31) return from_bits(sign | 0xffu << 23 | fraction << 13);
  if (exponent != 0) return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
  const float tiny = std::ldexp(static_cast<float>(fraction), -24);
  return sign ? -tiny : tiny;
}

float element(Factor factor, const void* fragment, int64_t i) {
  if (factor == Factor::tf32) {
    uint32_t bits;
    std::memcpy(&bits, static_cast<const uint32_t*>(fragment) + i, sizeof bits);
    return from_bits(bits & ~uint32_t{0x1fff});  // devices do not look at the last 13 bits
  }
  uint16_t bits;
  std::memcpy(&bits, static_cast<const uint16_t*>(fragment) + i, sizeof bits);
  return factor == Factor::f16 ? from_half(bits) : from_bits(uint32_t{bits} << 16);
}

}  // namespace

void multiply(Factor factor, int64_t depth, const Fragments (&lanes)[kWarp]) {
  // A register of a fragment holds `packed` neighbours along k; the 4 threads of a group cover 4 * packed of them.
  const int packed = factor == Factor::tf32 ? 1 : 2, span = 4 * packed;
  const int spans = static_cast<int>(depth) / span;
  float a[kRows][kMaxDepth], b[kMaxDepth][kColumns];
  for (int lane = 0; lane < kWarp; ++lane) {
    const int group = lane / 4, first = lane % 4 * packed;
    for (int s = 0; s < spans; ++s) {
      for (int p = 0; p < packed; ++p) {
        const int k = s * span + first + p;
        a[group][k] = element(factor, lanes[lane].a, 2 * s * packed + p);
        a[group + 8][k] = element(factor, lanes[lane].a, (2 * s + 1) * packed + p);
        b[k][group] = element(factor, lanes[lane].b, s * packed + p);
      }
    }
  }
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      float sum = lanes[lane].c[i];
      for (int k = 0; k < depth; ++k) sum += a[row][k] * b[k][column];
      lanes[lane].d[i] = sum;
    }
  }
}

}  // namespace parc
