// The threads of an emulated launch, in blocks and warps.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "clock.h"
#include "fiber.h"
#include "fragments.h"
#include "shadow.h"

namespace parc {

enum class State : uint8_t { ready, at_barrier, in_warp, done };

// What one lane gives to, and gets from, an operation of its warp.
struct Lane {
  int64_t value = 0, source = 0;  // of a shuffle: the lane that it wants the value of
  int64_t result = 0;
  bool valid = false;
  Fragments fragments;  // of a matrix product
};

struct Thread {
  Fiber fiber;
  const Stack* stack = nullptr;
  Actor actor;
  State state = State::ready;
  int64_t site = -1;  // where it waits, or was last at an atomic access
  Lane lane;
};

// Some threads that follow each other.
struct Threads {
  Thread* threads = nullptr;
  uint32_t size = 0;
  uint32_t arrived = 0;  // where they wait for each other

  Thread* begin() const { return threads; }
  Thread* end() const { return threads + size; }
};

struct Warp : Threads {};

struct Block : Threads {
  uint32_t number = 0;
  uint32_t done = 0;
  std::vector<Warp> warps;
  uint64_t shared = 0;           // address of its shared memory: what the launch asked for,
  uint64_t dynamic_bytes = 0;    // and after that the kernel's own arrays
  uint64_t shared_bytes = 0;     // together
  std::vector<uint64_t> arrays;  // by number: their offsets
};

// Zeroed memory that starts on a page; throws std::bad_alloc.
class Mapping {
 public:
  Mapping() = default;
  explicit Mapping(uint64_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    start_ = static_cast<char*>(memory);
  }
  Mapping(Mapping&& other) noexcept { swap(other); }
  Mapping& operator=(Mapping&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Mapping() {
    if (start_) munmap(start_, bytes_);
  }

  uint64_t address() const { return reinterpret_cast<uint64_t>(start_); }
  bool contains(uint64_t address) const { return start_ && address - this->address() < bytes_; }

 private:
  void swap(Mapping& other) {
    std::swap(start_, other.start_);
    std::swap(bytes_, other.bytes_);
  }

  char* start_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace parc
