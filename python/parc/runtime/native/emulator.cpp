#include "emulator.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "buffers.h"
#include "grid.h"
#include "progress.h"
#include "synchronization.h"

namespace parc {
namespace {

// Accesses after which another thread gets its turn, so that one that waits without atomics cannot wait for ever. What
// is read again and again is only seen where races are looked for: without, many reads must be allowed.
constexpr uint32_t kSlice = 1024, kLongSlice = 1 << 16;
constexpr uint32_t kRandomSlice = 256;
// Rounds of all threads in which none stores another value or reads anything new before they are said to be stuck.
constexpr int kIdleRounds = 256;
// What a device has for the arrays of a kernel's own.
constexpr uint64_t kStaticShared = 48 << 10;
// Unset shared memory: not a number in every floating-point type.
constexpr int kUnset = 0xff;

uint64_t pages(uint64_t bytes) { return (bytes + Shadow::kPageBytes - 1) / Shadow::kPageBytes * Shadow::kPageBytes; }

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
  std::shared_ptr<const Clock> known_to(const Crew& threads) const;
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
thread_local Emulator* running = nullptr;

int Emulator::launch(int64_t kernel, int64_t grid, int64_t block, int64_t shared_bytes, bool cooperative, void** argv) {
  constexpr int64_t kMaxGrid = int64_t{1} << (32 - kThreadBits);
  kernel_ = kernel;
  thread_ = nullptr;
  failed_ = kernel < 0 || kernel >= static_cast<int64_t>(kernels_.size()) || grid < 0 || grid > kMaxGrid || block < 1 ||
            block > kMaxThreads || shared_bytes < 0;
  if (failed_) {
    error_ = error_at(PARC_EMULATION_LAUNCH, -1);
    return static_cast<int>(error_.kind);
  }
  unset_ = {};
  argv_ = argv;
  grid_ = static_cast<uint32_t>(grid);
  block_size_ = static_cast<uint32_t>(block);
  dynamic_bytes_ = shared_bytes;
  random_.seed(settings_.seed);
  buffers_.clear();
  shadow_.start(block_size_);
  synchronization_.clear();
  Emulator* outer = std::exchange(running, this);
  try {
    if (cooperative) {
      run_blocks(0, grid_);
    } else {
      for (uint32_t number = 0; number < grid_ && !failed_; ++number) run_blocks(number, 1);
    }
  } catch (const std::bad_alloc&) {
    failed_ = true;
    error_ = error_at(PARC_EMULATION_MEMORY, -1);
  }
  running = outer;
  if (!failed_ && unset_.kind) {
    failed_ = true;
    error_ = unset_;
  }
  return failed_ ? static_cast<int>(error_.kind) : 0;
}

void Emulator::start_blocks(uint32_t first, uint32_t count) {
  const uint64_t stride = pages(dynamic_bytes_ + kStaticShared);
  const auto nothing_known = std::make_shared<const Clock>(grid_);
  shared_ = Mapping(stride * count);
  threads_.assign(size_t{count} * block_size_, Thread{});
  blocks_.assign(count, Block{});
  for (uint32_t b = 0; b < count; ++b) {
    Block& block = blocks_[b];
    block.number = first + b;
    block.threads = &threads_[size_t{b} * block_size_];
    block.size = block_size_;
    block.shared = shared_.address() + b * stride;
    block.dynamic_bytes = block.shared_bytes = dynamic_bytes_;
    std::memset(reinterpret_cast<void*>(block.shared), kUnset, dynamic_bytes_);
    shadow_.forget(block.shared, stride);
    for (uint32_t t = 0; t < block_size_; t += kWarp) {
      block.warps.push_back({{block.threads + t, std::min<uint32_t>(kWarp, block_size_ - t), 0}});
    }
    for (uint32_t t = 0; t < block_size_; ++t) {
      Thread& thread = block.threads[t];
      thread.actor = {thread_id(block.number, t), 1, nothing_known};
      thread.stack = &stacks_.get(size_t{b} * block_size_ + t);
      thread.fiber.start(*thread.stack, run_thread);
    }
  }
}

void Emulator::run_blocks(uint32_t first, uint32_t count) {
  for (uint32_t i = 0; i < count * block_size_; ++i) stacks_.get(i);
  start_blocks(first, count);
  std::vector<uint32_t> order(threads_.size());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
  for (int idle = 0; !order.empty() && !failed_;) {
    if (settings_.seed != 0) std::shuffle(order.begin(), order.end(), random_);
    progress_.start_round();
    run_round(order);
    idle = progress_.made() ? 0 : idle + 1;
    if (idle == kIdleRounds && !failed_) report_deadlock();
  }
}

void Emulator::run_round(std::vector<uint32_t>& order) {
  for (const uint32_t number : order) {
    if (threads_[number].state == State::ready) resume(number);
    if (failed_) return;
  }
  const auto is_done = [this](uint32_t number) { return threads_[number].state == State::done; };
  order.erase(std::remove_if(order.begin(), order.end(), is_done), order.end());
}

void Emulator::resume(uint32_t number) {
  thread_ = &threads_[number];
  block_ = &blocks_[number / block_size_];
  slice_ = settings_.check_races ? kSlice : kLongSlice;
  if (settings_.seed != 0) slice_ = 1 + random_() % kRandomSlice;
  Fiber::change(scheduler_, thread_->fiber);
}

void Emulator::run_thread() {
  running->kernels_[running->kernel_](running->argv_);
  running->finish();
}

void Emulator::finish() {
  thread_->state = State::done;
  ++block_->done;
  progress_.make();
  check_stuck();
  pause();
}

// After the current thread stopped: those who wait for it and can never go on are an error.
void Emulator::check_stuck() {
  const Warp& warp = block_->warps[number() / kWarp];
  if (warp.arrived != 0) {
    Thread* waiting = nullptr;
    Thread* elsewhere = nullptr;
    bool moves = false;
    for (Thread& t : warp) {
      moves = moves || t.state == State::ready;
      (t.state == State::in_warp ? waiting : elsewhere) = &t;
    }
    if (!moves) {
      thread_ = waiting;
      fail(error_with(PARC_EMULATION_DIVERGENCE, *elsewhere));
    }
  }
  if (block_->arrived != 0 && block_->done != 0) {
    const auto first = [this](State state) {
      return std::find_if(block_->begin(), block_->end(), [state](const Thread& t) { return t.state == state; });
    };
    thread_ = first(State::at_barrier);
    fail(error_with(PARC_EMULATION_DIVERGENCE, *first(State::done)));
  }
}

void Emulator::barrier(int64_t site) {
  thread_->site = site;
  const auto waits = [](const Thread& t) { return t.state == State::at_barrier; };
  if (block_->arrived != 0) {  // one of those that wait stands for all
    const Thread& other = *std::find_if(block_->begin(), block_->end(), waits);
    if (other.site != site) fail(error_with(PARC_EMULATION_DIVERGENCE, other));
  }
  if (++block_->arrived < block_->size) {
    thread_->state = State::at_barrier;
    check_stuck();
    pause();
    return;
  }
  block_->arrived = 0;
  // All know the same now, and of each other's past one number.
  auto joined = std::make_shared<Clock>(*known_to(*block_));
  uint32_t time = 0;
  for (const Thread& t : *block_) time = std::max(time, t.actor.time);
  joined->learn_block(block_->number, time);
  for (Thread& t : *block_) {
    t.state = State::ready;
    t.actor.clock = joined;
    t.actor.time = time + 1;
  }
}

// What any of some threads knows, but for their own times.
std::shared_ptr<const Clock> Emulator::known_to(const Crew& threads) const {
  std::shared_ptr<const Clock> known = threads.begin()->actor.clock;
  for (const Thread& t : threads) {
    if (t.actor.clock == known || known->covers(*t.actor.clock)) continue;
    auto joined = std::make_shared<Clock>(*known);
    joined->join(*t.actor.clock);
    known = std::move(joined);
  }
  return known;
}

// Waits until all lanes of the warp are here; the last calls `complete(warp)` for all.
template <typename Complete>
void Emulator::with_warp(int64_t site, Complete complete) {
  Warp& warp = block_->warps[number() / kWarp];
  thread_->site = site;
  for (const Thread& t : warp) {
    if (t.state == State::in_warp && t.site != site) fail(error_with(PARC_EMULATION_DIVERGENCE, t));
  }
  if (++warp.arrived < warp.size) {
    thread_->state = State::in_warp;
    check_stuck();
    pause();
  } else {
    warp.arrived = 0;
    for (Thread& t : warp) t.state = State::ready;
    complete(warp);
  }
}

void Emulator::warp_barrier(int64_t site) {
  with_warp(site, [this](Warp& warp) {
    auto joined = std::make_shared<Clock>(*known_to(warp));
    for (Thread& t : warp) joined->learn_thread(t.actor.id, t.actor.time++);
    for (Thread& t : warp) t.actor.clock = joined;
  });
}

int64_t Emulator::shuffle(int64_t value, int64_t offset, int64_t width, int64_t mode, int64_t site) {
  enum Mode : int64_t { kXor, kUp, kDown, kIndex };
  const int64_t me = number() % kWarp;
  Lane& lane = thread_->lane;
  lane.value = value;
  lane.source = mode == kXor ? me ^ offset : mode == kUp ? me - offset : mode == kDown ? me + offset : offset;
  with_warp(site, [width](Warp& warp) {
    for (Thread& t : warp) {
      Lane& lane = t.lane;
      lane.valid = lane.source >= 0 && lane.source < std::min<int64_t>(width, warp.size);
      lane.result = lane.valid ? warp.threads[lane.source].lane.value : lane.value;
    }
  });
  return lane.result;
}

void Emulator::multiply(const Fragments& fragments, Factor factor, int64_t depth, int64_t site) {
  thread_->lane.fragments = fragments;
  if (block_->warps[number() / kWarp].size < kWarp) fail(error_at(PARC_EMULATION_PARTIAL_WARP, site));
  with_warp(site, [factor, depth](Warp& warp) {
    Fragments lanes[kWarp];
    for (int i = 0; i < kWarp; ++i) lanes[i] = warp.threads[i].lane.fragments;
    parc::multiply(factor, depth, lanes);
  });
}

bool Emulator::is_private(uint64_t address) const {
  return address - reinterpret_cast<uint64_t>(thread_->stack->low) <
         static_cast<uint64_t>(thread_->stack->high - thread_->stack->low);
}

void Emulator::check_index(int64_t index, int64_t lanes, int64_t extent, int64_t dimension, int64_t site) {
  if (index >= 0 && index <= extent - lanes) return;
  parc_emulation_error error = error_at(PARC_EMULATION_INDEX, site);
  error.index = index;
  error.lanes = lanes;
  error.extent = extent;
  error.dimension = dimension;
  fail(error);
}

void Emulator::check_place(uint64_t address, uint64_t bytes, uint64_t alignment, int64_t site) {
  const uint64_t offset = address - block_->shared;
  const bool is_inside = offset < block_->shared_bytes ? bytes <= block_->shared_bytes - offset
                                                       : buffers_.contain(address, bytes);
  if (is_inside && address % alignment == 0) return;
  parc_emulation_error error = error_at(is_inside ? PARC_EMULATION_MISALIGNED : PARC_EMULATION_ADDRESS, site);
  locate(error, address, bytes);
  if (is_inside) error.extent = static_cast<int64_t>(alignment);
  fail(error);
}

void Emulator::check_order(uint64_t address, uint64_t bytes, Scope scope, bool write, int64_t site) {
  const Actor& actor = thread_->actor;
  const Epoch epoch(actor.id, actor.time, static_cast<uint32_t>(site), scope, write);
  const Shadow::Found found = shadow_.access(address, bytes, actor, epoch);
  if (found.fresh) progress_.make();
  const bool is_race = found.race.time != 0;
  const bool is_unset = found.unset && address - block_->shared < block_->shared_bytes;
  if (!is_race && (!is_unset || unset_.kind)) return;
  parc_emulation_error error = error_at(is_race ? PARC_EMULATION_RACE : PARC_EMULATION_UNSET, site);
  locate(error, address, bytes);
  if (!is_race) {
    unset_ = error;
    return;
  }
  error.other_site = found.race.site;
  error.other_block = block_of(found.race.thread);
  error.other_thread = thread_of(found.race.thread);
  fail(error);
}

void Emulator::access(uint64_t address, uint64_t bytes, uint64_t alignment, bool write, int64_t site) {
  if (is_private(address)) return;
  if (--slice_ == 0) pause();
  check_place(address, bytes, alignment, site);
  if (settings_.check_races) check_order(address, bytes, kNoScope, write, site);
  if (!write) return;
  progress_.store(address, bytes);
  synchronization_.overwrite(address, bytes);
}

void Emulator::atomic(uint64_t address, uint64_t bytes, int64_t mode, int64_t ordering, Scope scope, int64_t site) {
  constexpr int64_t kReads = 1, kWrites = 2;
  if (is_private(address)) return;
  thread_->site = site;
  if (mode & kReads) pause();  // it may wait for another thread
  check_place(address, bytes, bytes, site);
  if (settings_.check_races) check_order(address, bytes, scope, mode & kWrites, site);
  if (mode & kReads && ordering & kAcquire) synchronization_.acquire(address, thread_->actor, scope);
  if (!(mode & kWrites)) return;
  progress_.store(address, bytes);
  // A value that was read and changed still stands for what was released with it.
  if (!(mode & kReads)) synchronization_.overwrite(address, bytes);
  if (ordering & kRelease) synchronization_.release(address, thread_->actor, scope);
}

parc_memref Emulator::shared_array(uint64_t offset, uint64_t bytes) const {
  char* start = reinterpret_cast<char*>(block_->shared + offset);
  return {start, start, 0, static_cast<int64_t>(bytes), 1};
}

parc_memref Emulator::static_shared(size_t number, uint64_t bytes) {
  constexpr uint64_t kAlignment = 128;
  while (block_->arrays.size() <= number) block_->arrays.push_back(UINT64_MAX);
  uint64_t& offset = block_->arrays[number];
  if (offset == UINT64_MAX) {
    offset = (block_->shared_bytes + kAlignment - 1) / kAlignment * kAlignment;
    block_->shared_bytes = offset + bytes;
    if (block_->shared_bytes > block_->dynamic_bytes + kStaticShared) fail(error_at(PARC_EMULATION_LAUNCH, -1));
    std::memset(reinterpret_cast<void*>(block_->shared + offset), kUnset, bytes);
  }
  return shared_array(offset, bytes);
}

parc_emulation_error Emulator::error_at(parc_emulation_kind kind, int64_t site) const {
  parc_emulation_error error{};
  error.kind = kind;
  error.kernel = kernel_;
  error.site = site;
  error.block = thread_ ? block_of(thread_->actor.id) : -1;
  error.thread = thread_ ? thread_of(thread_->actor.id) : -1;
  error.other_site = error.other_block = error.other_thread = -1;
  error.place = PARC_PLACE_UNKNOWN;
  return error;
}

parc_emulation_error Emulator::error_with(parc_emulation_kind kind, const Thread& other) const {
  parc_emulation_error error = error_at(kind, thread_->site);
  error.other_site = other.state == State::done ? -1 : other.site;
  error.other_block = block_of(other.actor.id);
  error.other_thread = thread_of(other.actor.id);
  return error;
}

void Emulator::locate(parc_emulation_error& error, uint64_t address, uint64_t bytes) const {
  error.bytes = static_cast<int64_t>(bytes);
  if (shared_.contains(address)) {
    error.place = PARC_PLACE_SHARED;
    error.offset = static_cast<int64_t>(address - block_->shared);
    error.extent = static_cast<int64_t>(block_->shared_bytes);
  } else if (const Buffer* buffer = buffers_.nearest(address)) {
    error.place = buffer->argument;
    error.offset = static_cast<int64_t>(address - buffer->start);
    error.extent = static_cast<int64_t>(buffer->bytes);
  }
}

// Between two rounds: no thread ran, or those that ran changed nothing.
void Emulator::report_deadlock() {
  const auto first = [this](auto is_one) {
    const auto found = std::find_if(threads_.begin(), threads_.end(), is_one);
    return found == threads_.end() ? nullptr : &*found;
  };
  Thread* spins = first([](const Thread& t) { return t.state == State::ready; });
  Thread* waits = first([](const Thread& t) { return t.state == State::at_barrier || t.state == State::in_warp; });
  thread_ = spins ? spins : waits;
  error_ = error_at(PARC_EMULATION_DEADLOCK, thread_->site);
  if (spins && waits) error_ = error_with(PARC_EMULATION_DEADLOCK, *waits);
  failed_ = true;
}

void Emulator::fail(parc_emulation_error error) {
  error_ = error;
  failed_ = true;
  // The threads of the launch are not taken up again. `thread_` may name another one than that which runs.
  Fiber abandoned;
  Fiber::change(abandoned, scheduler_);
  __builtin_unreachable();
}

}  // namespace
}  // namespace parc

using parc::running;

extern "C" {

void* parc_emulator_create(void (**kernels)(void**), int64_t count) {
  try {
    return new parc::Emulator(kernels, count);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void parc_emulator_destroy(void* emulator) { delete static_cast<parc::Emulator*>(emulator); }

void parc_emulator_configure(void* emulator, const parc_emulation_settings* settings) {
  static_cast<parc::Emulator*>(emulator)->configure(*settings);
}

parc_emulation_error parc_emulator_take_error(void* emulator) {
  return static_cast<parc::Emulator*>(emulator)->take_error();
}

int parc_emulate(void* emulator, int64_t kernel, int64_t grid, int64_t block, int64_t shared_bytes, int64_t cooperative,
                 void** argv, int64_t) {
  return static_cast<parc::Emulator*>(emulator)->launch(kernel, grid, block, shared_bytes, cooperative != 0, argv);
}

int64_t parc_emulated_thread(void) { return running->number(); }
int64_t parc_emulated_block(void) { return running->block().number; }
int64_t parc_emulated_block_size(void) { return running->block().size; }
int64_t parc_emulated_grid_size(void) { return running->grid_size(); }

void parc_emulated_buffer(int64_t pointer, int64_t bytes, int64_t argument) {
  running->add_buffer({static_cast<uint64_t>(pointer), static_cast<uint64_t>(bytes), argument});
}

void _mlir_ciface_parc_emulated_dynamic_shared(parc_memref* result) { *result = running->dynamic_shared(); }

void _mlir_ciface_parc_emulated_static_shared(parc_memref* result, int64_t number, int64_t bytes) {
  *result = running->static_shared(number, bytes);
}

void parc_emulated_index(int64_t index, int64_t lanes, int64_t extent, int64_t dimension, int64_t site) {
  running->check_index(index, lanes, extent, dimension, site);
}

void parc_emulated_masked_index(int64_t index, int64_t mask, int64_t extent, int64_t dimension, int64_t site) {
  if (mask == 0) return;
  const int64_t first = __builtin_ctzll(mask), last = 63 - __builtin_clzll(mask);
  running->check_index(index + first, last - first + 1, extent, dimension, site);
}

void parc_emulated_access(int64_t address, int64_t bytes, int64_t alignment, int64_t write, int64_t site) {
  running->access(address, bytes, alignment, write != 0, site);
}

void parc_emulated_masked_access(int64_t address, int64_t bytes, int64_t alignment, int64_t mask, int64_t write,
                                 int64_t site) {
  for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
    running->access(address + __builtin_ctzll(rest) * bytes, bytes, alignment, write != 0, site);
  }
}

void parc_emulated_atomic(int64_t address, int64_t bytes, int64_t mode, int64_t ordering, int64_t scope, int64_t site) {
  running->atomic(address, bytes, mode, ordering, static_cast<parc::Scope>(scope), site);
}

void parc_emulated_barrier(int64_t site) { running->barrier(site); }

void parc_emulated_warp_barrier(int64_t site) { running->warp_barrier(site); }

int64_t parc_emulated_shuffle(int64_t value, int64_t offset, int64_t width, int64_t mode, int64_t site) {
  return running->shuffle(value, offset, width, mode, site);
}

int64_t parc_emulated_shuffle_valid(void) { return running->shuffle_valid(); }

void parc_emulated_mma(int64_t a, int64_t b, int64_t c, int64_t d, int64_t factor, int64_t depth, int64_t site) {
  const parc::Fragments fragments{reinterpret_cast<const void*>(a), reinterpret_cast<const void*>(b),
                                  reinterpret_cast<const float*>(c), reinterpret_cast<float*>(d)};
  running->multiply(fragments, static_cast<parc::Factor>(factor), depth, site);
}
}
