// A counter that threads wait on: it only grows, and a waiter names the value it waits for.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

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

// A spin is answered within a cache miss, and is bounded because the thread waited for may need this very core. It lasts
// some tens of microseconds, about the cost of one sleep and wake.
constexpr int kSpins = 2000;
constexpr int kMaxRests = 64;

// Whether a thread spins before it sleeps. Every spin in vain makes the next ones rarer, down to one wait in 65, and every
// one that pays makes them more frequent: on a machine with a core for each thread all waits spin, on a crowded one few
// do. (There is no yield between the two: where other programs run, one can cost a time slice, which is milliseconds.)
class Patience {
 public:
  // Called once a wait: whether this one spins.
  bool spins() {
    if (remaining_ == 0) return true;
    --remaining_;
    return false;
  }

  void paid() { remaining_ = rests_ /= 2; }
  void in_vain() { remaining_ = rests_ = std::min(2 * rests_ + 1, kMaxRests); }

 private:
  int rests_ = 0;      // waits without a spin after each spin
  int remaining_ = 0;  // those still to come
};

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
  void wait(uint64_t target, Patience& patience) {
    if (reached(target)) return;
    if (patience.spins()) {
      for (int i = 0; i < kSpins; ++i) {
        pause();
        if (reached(target)) return patience.paid();
      }
      patience.in_vain();
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
