// The memory that an emulated kernel may touch, to tell what is outside of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace parc {

struct Buffer {
  uint64_t start = 0;
  uint64_t bytes = 0;
  int64_t argument = 0;  // its number among the kernel's arguments

  uint64_t end() const { return start + bytes; }
};

class Buffers {
 public:
  void clear() {
    buffers_.clear();
    ranges_.clear();
    last_ = {};
  }

  // Buffers may overlap.
  void add(const Buffer& buffer) {
    if (buffer.bytes == 0 || std::any_of(buffers_.begin(), buffers_.end(), [&](const Buffer& known) {
          return known.start == buffer.start && known.bytes == buffer.bytes;
        })) {
      return;
    }
    buffers_.push_back(buffer);
    Range joined{buffer.start, buffer.end()};
    const auto overlaps = [&](const Range& range) { return range.first < joined.end && joined.first < range.end; };
    for (auto found = ranges_.begin();
         (found = std::find_if(ranges_.begin(), ranges_.end(), overlaps)) != ranges_.end(); ranges_.erase(found)) {
      joined = {std::min(joined.first, found->first), std::max(joined.end, found->end)};
    }
    ranges_.insert(std::upper_bound(ranges_.begin(), ranges_.end(), joined), joined);
  }

  // Whether all these bytes are in one buffer, or in some that overlap.
  bool contain(uint64_t address, uint64_t bytes) {
    if (last_.contains(address, bytes)) return true;
    auto after = std::upper_bound(ranges_.begin(), ranges_.end(), Range{address, 0});
    if (after == ranges_.begin() || !(--after)->contains(address, bytes)) return false;
    last_ = *after;
    return true;
  }

  // The smallest buffer with this address; else the one that ends last before it; null without one.
  const Buffer* nearest(uint64_t address) const {
    const Buffer* best = nullptr;
    for (const Buffer& buffer : buffers_) {
      if (buffer.start > address) continue;
      const bool inside = address < buffer.end(), best_inside = best && address < best->end();
      if (!best || (inside ? !best_inside || buffer.bytes < best->bytes : !best_inside && buffer.end() > best->end())) {
        best = &buffer;
      }
    }
    return best;
  }

 private:
  struct Range {
    uint64_t first = 0, end = 0;
    bool operator<(const Range& other) const { return first < other.first; }
    bool contains(uint64_t address, uint64_t bytes) const {
      return address >= first && address < end && bytes <= end - address;
    }
  };

  std::vector<Buffer> buffers_;
  std::vector<Range> ranges_;  // their union, disjoint, in ascending order
  Range last_;                 // where the last access was
};

}  // namespace parc
