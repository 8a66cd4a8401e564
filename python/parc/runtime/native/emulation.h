// One emulated GPU: what the threads of a launch do, and what is wrong with it.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "buffers.h"
#include "emulator.h"
#include "grid.h"
#include "progress.h"
#include "synchronization.h"

namespace parc {

// What a device has for the arrays of a kernel's own.
constexpr uint64_t kStaticShared = 48 << 10;
// Unset shared memory: not a number in every floating-point type.
constexpr int kUnset = 0xff;

class Emulator {
 public:
  Emulator(void (**kernels)(void**), int64_t count) : kernels_(kernels, kernels + count) {}

  void configure(const parc_emulation_settings& settings) { settings_ = settings; }
  int launch(int64_t kernel, int64_t grid, int64_t block, int64_t shared_bytes, bool cooperative, void** argv);
  parc_emulation_error take_error() { return std::exchange(error_, {}); }

  // Called by the current thread.
  const Block& block() const { return *block_; }
  uint32_t grid_size() const { return grid_; }
  uint32_t number() const { return thread_of(thread_->actor.id); }
  void add_buffer(const Buffer& buffer) { buffers_.add(buffer); }
  parc_memref dynamic_shared() const { return shared_array(0, block_->dynamic_bytes); }
  parc_memref static_shared(size_t number, uint64_t bytes);
  void check_index(int64_t index, int64_t lanes, int64_t extent, int64_t dimension, int64_t site);
  void access(uint64_t address, uint64_t bytes, uint64_t alignment, bool write, int64_t site);
  void atomic(uint64_t address, uint64_t bytes, int64_t mode, int64_t ordering, Scope scope, int64_t site);
  void barrier(int64_t site);
  void warp_barrier(int64_t site);
  int64_t shuffle(int64_t value, int64_t offset, int64_t width, int64_t mode, int64_t site);
  bool shuffle_valid() const { return thread_->lane.valid; }
  void multiply(const Fragments& fragments, Factor factor, int64_t depth, int64_t site);
  [[noreturn]] void fail_without_memory() { fail(error_at(PARC_EMULATION_MEMORY, -1)); }

 private:
  static void run_thread();
  void run_blocks(uint32_t first, uint32_t count);
  void start_blocks(uint32_t first, uint32_t count);
  void run_round(std::vector<uint32_t>& order);
  void resume(uint32_t number);
  void pause() { Fiber::change(thread_->fiber, scheduler_); }
  void finish();
  [[noreturn]] void fail(parc_emulation_error error);
  void check_stuck();
  template <typename Complete>
  void with_warp(int64_t site, Complete complete);
  std::shared_ptr<const Clock> known_to(const Threads& threads) const;
  bool is_private(uint64_t address) const;
  void check_place(uint64_t address, uint64_t bytes, uint64_t alignment, int64_t site);
  void check_order(uint64_t address, uint64_t bytes, Scope scope, bool write, int64_t site);
  parc_memref shared_array(uint64_t offset, uint64_t bytes) const;
  parc_emulation_error error_at(parc_emulation_kind kind, int64_t site) const;
  parc_emulation_error error_with(parc_emulation_kind kind, const Thread& other) const;
  void locate(parc_emulation_error& error, uint64_t address, uint64_t bytes) const;
  void report_deadlock();

  const std::vector<void (*)(void**)> kernels_;
  parc_emulation_settings settings_{0, 1};
  parc_emulation_error error_{};
  parc_emulation_error unset_{};  // the first read of unset memory: an error unless a write turns out to race with it

  // Of the launch.
  int64_t kernel_ = 0;
  void** argv_ = nullptr;
  uint32_t grid_ = 0, block_size_ = 0;
  uint64_t dynamic_bytes_ = 0;
  bool failed_ = false;
  std::mt19937_64 random_;
  Progress progress_;
  Buffers buffers_;
  Shadow shadow_;
  Synchronization synchronization_;
  Mapping shared_;

  // Of the blocks that are live.
  Stacks stacks_;
  std::vector<Thread> threads_;
  std::vector<Block> blocks_;
  Fiber scheduler_;
  Thread* thread_ = nullptr;  // the current one
  Block* block_ = nullptr;
  uint32_t slice_ = 0;  // accesses left in its turn
};

// The launch that the emulated code on this thread of the host belongs to.
inline thread_local Emulator* running = nullptr;

}  // namespace parc
