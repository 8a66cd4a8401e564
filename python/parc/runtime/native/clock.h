// What a thread of an emulated GPU knows has happened: a vector clock that is short because a barrier tells all threads
// of a block the same.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace parc {

// Block and thread of the block in one word.
using ThreadId = uint32_t;
constexpr uint32_t kThreadBits = 10;
constexpr uint32_t kMaxThreads = 1 << kThreadBits;

inline ThreadId thread_id(uint32_t block, uint32_t thread) { return block << kThreadBits | thread; }
inline uint32_t block_of(ThreadId id) { return id >> kThreadBits; }
inline uint32_t thread_of(ThreadId id) { return id & (kMaxThreads - 1); }

// A thread's time starts at 1 and goes up after what others can learn of: a release or a barrier.
class Clock {
 public:
  explicit Clock(size_t blocks) : blocks_(blocks) {}

  // The time up to which everything that this thread did, or those of this block, is known.
  uint32_t of(ThreadId id) const {
    const uint32_t all = blocks_[block_of(id)];
    const auto found = find(id);
    return found != threads_.end() && found->first == id ? std::max(all, found->second) : all;
  }

  uint32_t of_block(uint32_t block) const { return blocks_[block]; }

  bool knows(ThreadId id, uint32_t time) const { return blocks_[block_of(id)] >= time || of(id) >= time; }

  void learn_thread(ThreadId id, uint32_t time) {
    const auto found = threads_.begin() + (find(id) - threads_.begin());
    if (found != threads_.end() && found->first == id) {
      found->second = std::max(found->second, time);
    } else {
      threads_.insert(found, {id, time});
    }
  }

  // Of all threads of a block.
  void learn_block(uint32_t block, uint32_t time) {
    blocks_[block] = std::max(blocks_[block], time);
    forget_covered();
  }

  // Whether joining `other` would change nothing.
  bool covers(const Clock& other) const {
    for (size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i] < other.blocks_[i]) return false;
    }
    return std::all_of(other.threads_.begin(), other.threads_.end(),
                       [this](const Entry& entry) { return knows(entry.first, entry.second); });
  }

  void join(const Clock& other) {
    for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i] = std::max(blocks_[i], other.blocks_[i]);
    std::vector<Entry> merged;
    merged.reserve(threads_.size() + other.threads_.size());
    std::merge(threads_.begin(), threads_.end(), other.threads_.begin(), other.threads_.end(),
               std::back_inserter(merged));
    threads_.clear();
    for (const Entry& entry : merged) {
      // Entries of one thread follow each other, the later time last.
      if (!threads_.empty() && threads_.back().first == entry.first) threads_.pop_back();
      threads_.push_back(entry);
    }
    forget_covered();
  }

 private:
  using Entry = std::pair<ThreadId, uint32_t>;

  std::vector<Entry>::const_iterator find(ThreadId id) const {
    return std::lower_bound(threads_.begin(), threads_.end(), Entry{id, 0});
  }

  void forget_covered() {
    const auto covered = [this](const Entry& entry) { return entry.second <= blocks_[block_of(entry.first)]; };
    threads_.erase(std::remove_if(threads_.begin(), threads_.end(), covered), threads_.end());
  }

  std::vector<uint32_t> blocks_;  // by block: what is known of all its threads
  std::vector<Entry> threads_;    // single threads of which more is known, in ascending order
};

}  // namespace parc
