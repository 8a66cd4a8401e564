#include "emulator.h"

#include <new>

#include "emulation.h"

using parc::Emulator;
using parc::running;

namespace {

// Does what a thread asks for; without memory that is the end of its launch. Exceptions must not reach emulated code.
template <typename Step>
void step(Step step) {
  bool is_done = true;
  try {
    step();
  } catch (const std::bad_alloc&) {
    is_done = false;
  }
  if (!is_done) running->fail_without_memory();
}

}  // namespace

extern "C" {

void* parc_emulator_create(void (**kernels)(void**), int64_t count) {
  try {
    return new Emulator(kernels, count);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void parc_emulator_destroy(void* emulator) { delete static_cast<Emulator*>(emulator); }

void parc_emulator_configure(void* emulator, const parc_emulation_settings* settings) {
  static_cast<Emulator*>(emulator)->configure(*settings);
}

parc_emulation_error parc_emulator_take_error(void* emulator) {
  return static_cast<Emulator*>(emulator)->take_error();
}

int parc_emulate(void* emulator, int64_t kernel, int64_t grid, int64_t block, int64_t shared_bytes, int64_t cooperative,
                 void** argv, int64_t) {
  return static_cast<Emulator*>(emulator)->launch(kernel, grid, block, shared_bytes, cooperative != 0, argv);
}

int64_t parc_emulated_thread(void) { return running->number(); }
int64_t parc_emulated_block(void) { return running->block().number; }
int64_t parc_emulated_block_size(void) { return running->block().size; }
int64_t parc_emulated_grid_size(void) { return running->grid_size(); }

void parc_emulated_buffer(int64_t pointer, int64_t bytes, int64_t argument) {
  step([=] { running->add_buffer({static_cast<uint64_t>(pointer), static_cast<uint64_t>(bytes), argument}); });
}

void _mlir_ciface_parc_emulated_dynamic_shared(parc_memref* result) { *result = running->dynamic_shared(); }

void _mlir_ciface_parc_emulated_static_shared(parc_memref* result, int64_t number, int64_t bytes) {
  step([=] { *result = running->static_shared(number, bytes); });
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
  step([=] { running->access(address, bytes, alignment, write != 0, site); });
}

void parc_emulated_masked_access(int64_t address, int64_t bytes, int64_t alignment, int64_t mask, int64_t write,
                                 int64_t site) {
  for (uint64_t rest = mask; rest != 0; rest &= rest - 1) {
    const int64_t lane = address + __builtin_ctzll(rest) * bytes;
    step([=] { running->access(lane, bytes, alignment, write != 0, site); });
  }
}

void parc_emulated_atomic(int64_t address, int64_t bytes, int64_t mode, int64_t ordering, int64_t scope, int64_t site) {
  step([=] { running->atomic(address, bytes, mode, ordering, static_cast<parc::Scope>(scope), site); });
}

void parc_emulated_barrier(int64_t site) {
  step([=] { running->barrier(site); });
}

void parc_emulated_warp_barrier(int64_t site) {
  step([=] { running->warp_barrier(site); });
}

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
