// The memory of an emulated launch: what its threads may touch, and in which order.
#include <cstring>

#include "emulation.h"

namespace parc {

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

}  // namespace parc
