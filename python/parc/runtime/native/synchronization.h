// What passes from a release to an acquire of the same address.
#pragma once

#include <bitset>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "clock.h"
#include "shadow.h"

namespace parc {

// Memory orderings, as bits.
enum Ordering : int64_t { kRelaxed = 0, kAcquire = 1, kRelease = 2 };

class Synchronization {
 public:
  // The actor reads the value at `address` and learns what those who released it knew. Scopes count: a release within a
  // block says nothing to other blocks, and an acquire within a block hears nobody else.
  void acquire(uint64_t address, Actor& actor, Scope scope) const {
    const auto found = releases_.find(address);
    if (found == releases_.end()) return;
    for (const Release& release : found->second) {
      const bool same_block = release.block == block_of(actor.id);
      if (!same_block && (release.scope != kDeviceScope || scope != kDeviceScope)) continue;
      if (release.clock == actor.clock || actor.clock->covers(*release.clock)) continue;
      auto joined = std::make_shared<Clock>(*actor.clock);
      joined->join(*release.clock);
      actor.clock = std::move(joined);
    }
  }

  // The actor writes `address` and tells what it knows to whoever reads that value; its own time goes on.
  void release(uint64_t address, Actor& actor, Scope scope) {
    auto told = std::make_shared<Clock>(*actor.clock);
    told->learn_thread(actor.id, actor.time++);
    filter_.set(bucket(address));
    std::vector<Release>& all = releases_[address];
    for (Release& release : all) {
      if (release.block != block_of(actor.id) || release.scope != scope) continue;
      if (!told->covers(*release.clock)) told->join(*release.clock);
      release.clock = std::move(told);
      return;
    }
    all.push_back({block_of(actor.id), scope, std::move(told)});
  }

  // Other values are written there: what was released with the old ones is lost.
  void overwrite(uint64_t address, uint64_t bytes) {
    for (uint64_t at = address & ~uint64_t{3}; at < address + bytes; at += 4) {
      if (filter_.test(bucket(at))) releases_.erase(at);
    }
  }

  void clear() {
    releases_.clear();
    filter_.reset();
  }

 private:
  struct Release {
    uint32_t block;
    Scope scope;
    std::shared_ptr<const Clock> clock;
  };

  static constexpr size_t kBuckets = 4096;
  static size_t bucket(uint64_t address) { return address / 4 % kBuckets; }

  std::unordered_map<uint64_t, std::vector<Release>> releases_;
  std::bitset<kBuckets> filter_;  // where there may be releases
};

}  // namespace parc
