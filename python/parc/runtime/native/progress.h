// Whether the threads of a launch do more than wait: whether one of them does something new, or stores what differs
// from what was there.
#pragma once

#include <cstdint>
#include <cstring>

namespace parc {

class Progress {
 public:
  void start_round() { made_ = false; }

  // Before a store. What it changed shows at the next call of this or of `made`.
  void store(uint64_t address, uint64_t bytes) {
    if (made_) return;
    settle();
    if (made_) return;
    if (bytes > sizeof old_) {
      made_ = true;
      return;
    }
    address_ = address;
    bytes_ = bytes;
    std::memcpy(old_, reinterpret_cast<const void*>(address), bytes);
  }

  void make() { made_ = true; }

  bool made() {
    settle();
    return made_;
  }

 private:
  void settle() {
    if (bytes_ != 0 && std::memcmp(old_, reinterpret_cast<const void*>(address_), bytes_) != 0) made_ = true;
    bytes_ = 0;
  }

  bool made_ = false;
  uint64_t address_ = 0, bytes_ = 0;  // of the last store
  unsigned char old_[64];
};

}  // namespace parc
