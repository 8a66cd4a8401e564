// A counter that threads wait on: it only grows, and a waiter names the value it waits for.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace parc {

// Tells the core that this is a wait loop.
inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

// Waits go from cheap to polite. A spin is answered within a cache miss, and is bounded because the thread waited for may
// need this very core; a yield gives that thread the core when it is queued there; sleep frees the core for anyone.
// Together they last some tens of microseconds, about the cost of one sleep and wake.
constexpr int kSpins = 2000;
constexpr int kYields = 50;

class alignas(64) Counter {
 public:
  // Adds one and returns the new value. Waiters who spin see it at once; sleepers need `wake`.
  uint64_t increment() { return value_.fetch_add(1) + 1; }

  // Wakes the threads that sleep in `wait`.
  void wake() {
    // The pair (value_, sleepers_) is sequentially consistent: either this load sees a sleeper, or the sleeper's check of
    // value_ sees the increment that preceded this call.
    if (sleepers_.load() == 0) return;
    { std::lock_guard<std::mutex> lock(mutex_); }
    changed_.notify_all();
  }

  // Returns once the counter has reached `target`; what was written before the increment is visible then.
  void wait(uint64_t target) {
    for (int i = 0; i < kSpins; ++i) {
      if (reached(target)) return;
      pause();
    }
    for (int i = 0; i < kYields; ++i) {
      if (reached(target)) return;
      std::this_thread::yield();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    changed_.wait(lock, [&] { return value_.load() >= target; });
    sleepers_.fetch_sub(1);
  }

 private:
  bool reached(uint64_t target) const { return value_.load(std::memory_order_acquire) >= target; }

  std::atomic<uint64_t> value_{0};
  // On a line of its own: every increment reads it, and it rarely changes.
  alignas(64) std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace parc
