// Fibers: the threads of an emulated GPU, all on one thread of the host, which switches between them by hand.
#pragma once

#include <cstddef>
#include <vector>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#define PARC_FIBER_UCONTEXT 1
#endif

namespace parc {

// A mapped stack with a page below it that may not be touched. Pages cost memory only once they are used.
struct Stack {
  char* low = nullptr;
  char* high = nullptr;
};

// Stacks that are kept for the fibers to come.
class Stacks {
 public:
  Stacks() = default;
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;

  // The stack with this number, made at its first use; throws std::bad_alloc.
  const Stack& get(size_t number);

 private:
  std::vector<Stack> stacks_;
};

// Where code on some stack stopped. A default one takes up the state of the code that switches away from it.
class Fiber {
 public:
  // Makes the next switch to it call `entry`, which must never return, on this stack.
  void start(const Stack& stack, void (*entry)());

  // Stops here, as `from`, and continues where `to` stopped.
  static void change(Fiber& from, Fiber& to);

 private:
#ifdef PARC_FIBER_UCONTEXT
  ucontext_t context_{};
#else
  void* pointer_ = nullptr;
#endif
};

}  // namespace parc
