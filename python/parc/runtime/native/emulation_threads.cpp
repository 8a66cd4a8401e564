// The threads of an emulated launch: whose turn it is, who waits for whom, and who waits in vain.
#include <algorithm>
#include <cstring>

#include "emulation.h"

namespace parc {
namespace {

// Accesses after which another thread gets its turn, so that one that waits without atomics cannot wait for ever. What
// is read again and again is only seen where races are looked for: without, many reads must be allowed.
constexpr uint32_t kSlice = 1024, kLongSlice = 1 << 16;
constexpr uint32_t kRandomSlice = 256;
// Rounds of all threads in which none stores another value or reads anything new before they are said to be stuck.
constexpr int kIdleRounds = 256;

uint64_t pages(uint64_t bytes) { return (bytes + Shadow::kPageBytes - 1) / Shadow::kPageBytes * Shadow::kPageBytes; }

}  // namespace

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
  slice_ = !settings_.check_races ? kLongSlice : settings_.seed == 0 ? kSlice : 1 + random_() % kRandomSlice;
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
std::shared_ptr<const Clock> Emulator::known_to(const Threads& threads) const {
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

}  // namespace parc
