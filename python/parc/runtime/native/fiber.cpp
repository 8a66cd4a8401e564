#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

namespace parc {
namespace {

// Of address space: what a thread keeps for itself on a device is registers and a few KiB.
constexpr size_t kStackBytes = size_t{256} << 10;

}  // namespace

Stacks::~Stacks() {
  const size_t guard = sysconf(_SC_PAGESIZE);
  for (const Stack& stack : stacks_) munmap(stack.low - guard, stack.high - stack.low + guard);
}

const Stack& Stacks::get(size_t number) {
  const size_t guard = sysconf(_SC_PAGESIZE);
  while (stacks_.size() <= number) {
    void* memory = mmap(nullptr, guard + kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    char* low = static_cast<char*>(memory) + guard;
    stacks_.push_back({low, low + kStackBytes});
    if (mprotect(memory, guard, PROT_NONE) != 0) throw std::bad_alloc();
  }
  return stacks_[number];
}

#ifdef PARC_FIBER_UCONTEXT

void Fiber::start(const Stack& stack, void (*entry)()) {
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack.low;
  context_.uc_stack.ss_size = stack.high - stack.low;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
}

void Fiber::change(Fiber& from, Fiber& to) { swapcontext(&from.context_, &to.context_); }

#else

// void parc_fiber_switch(void** from, void* to): pushes what a called function must preserve, and swaps stack pointers.
// The floating-point environment is not switched: all fibers of a launch have their caller's.
extern "C" __attribute__((visibility("hidden"))) void parc_fiber_switch(void** from,
                                                                       void* to) __asm__("parc_fiber_switch");

#if defined(__x86_64__)

constexpr size_t kSaved = 6;  // words below the return address

__asm__(
    ".text\n"
    ".p2align 4\n"
    "parc_fiber_switch:\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  ret\n");

#else  // __aarch64__

constexpr size_t kSaved = 11;  // words below the link register

__asm__(
    ".text\n"
    ".p2align 4\n"
    "parc_fiber_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n"
    "  stp x21, x22, [sp, #16]\n"
    "  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n"
    "  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n"
    "  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n"
    "  str x9, [x0]\n"
    "  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n"
    "  ldp x21, x22, [sp, #16]\n"
    "  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n"
    "  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n"
    "  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n");

#endif

void Fiber::start(const Stack& stack, void (*entry)()) {
  // The frame that the switch pops, as if `entry` had been called from the very top of the stack, which is aligned.
  constexpr size_t kFrame = 20;
  uint64_t* frame = reinterpret_cast<uint64_t*>(stack.high) - kFrame;
  std::memset(frame, 0, kFrame * sizeof(uint64_t));
#if defined(__x86_64__)
  frame += kFrame - 2 - kSaved;  // a return address of 0 stays above that of `entry`
#endif
  frame[kSaved] = reinterpret_cast<uint64_t>(entry);
  pointer_ = frame;
}

void Fiber::change(Fiber& from, Fiber& to) { parc_fiber_switch(&from.pointer_, to.pointer_); }

#endif

}  // namespace parc
