// Who touched which bytes last: finds two accesses to the same bytes that nothing orders. The method is FastTrack's
// (Flanagan and Freund, PLDI 2009): a cell of memory has an epoch for its last write, and one or a set of them for what
// else later accesses may race with.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "clock.h"

namespace parc {

// How far an access is atomic: for nobody, the threads of its block, or those of the device.
enum Scope : uint32_t { kNoScope, kBlockScope, kDeviceScope };

// One access, and when it was.
struct Epoch {
  ThreadId thread = 0;
  uint32_t time = 0;  // 0: no access
  uint32_t site : 29;
  uint32_t scope : 2;
  uint32_t is_write : 1;

  Epoch() : site(0), scope(kNoScope), is_write(0) {}
  Epoch(ThreadId thread, uint32_t time, uint32_t site, uint32_t scope, bool is_write)
      : thread(thread), time(time), site(site), scope(scope), is_write(is_write) {}
};

// A thread as far as races are concerned.
struct Actor {
  ThreadId id = 0;
  uint32_t time = 1;
  std::shared_ptr<const Clock> clock;

  // Whether what happens now is ordered after an access.
  bool is_after(const Epoch& access) const {
    return access.thread == id || clock->knows(access.thread, access.time);
  }
};

// Accesses of a cell that later ones may race with: one as it is; of several, like ones of a block's threads at one
// time and site are a group with a bit for each thread.
class AccessSets {
 public:
  // All sets are gone; blocks have so many threads from now on.
  void start(uint32_t block_size);

  // Adds an access of `actor` and drops those that it stands for. Returns whether it was not there.
  bool add(Epoch& set, const Actor& actor, const Epoch& access);

  // Drops those that `access`, which `actor` makes now, stands for: what races with them races with it as well.
  void prune(Epoch& set, const Actor& actor, const Epoch& access);

  // Adds an access as it is. Returns whether it was not there.
  bool insert(Epoch& set, const Epoch& access);

  // One that races with `access`, which `actor` makes now; time 0 for none.
  Epoch conflict(const Epoch& set, const Actor& actor, const Epoch& access) const;

  void clear(Epoch& set);

  // The same, for a cell of its own.
  Epoch copy(const Epoch& set);

 private:
  struct Group {
    uint32_t next;  // 0 for the last
    Epoch first;    // the access of one of its threads
  };

  static constexpr uint32_t kMany = UINT32_MAX;  // the time of what is no access but stands for the group `thread`

  uint32_t make(uint32_t next, const Epoch& access);
  void free(uint32_t group);
  bool mark(uint32_t group, ThreadId id);
  template <typename Test>
  Epoch find(uint32_t group, Test test) const;

  uint32_t words_ = 1;  // of 64 bits in a group
  std::vector<Group> groups_;
  std::vector<uint64_t> bits_;  // by group
  uint32_t free_ = 0;           // a list of groups
};

class Shadow {
 public:
  struct Found {
    Epoch race;          // an earlier access that races with this one; time 0 for none
    bool unset = false;  // whether this one reads bytes that nobody has written
    bool fresh = false;  // whether it is the thread's first such access since it last synchronised
  };

  // Notes an access and says what is known of its bytes.
  Found access(uint64_t address, uint64_t bytes, const Actor& actor, const Epoch& epoch);

  // Nobody has touched these bytes; they start and end with a page.
  void forget(uint64_t address, uint64_t bytes);

  // Nobody has touched anything; blocks have so many threads from now on.
  void start(uint32_t block_size);

  static constexpr uint64_t kPageBytes = 4096;

 private:
  // What is known of a few bytes.
  struct Cell {
    Epoch write;
    Epoch others;  // the set of reads since the last write, and of atomic writes that it is not ordered after
  };

  // Cells of 4, 2 or 1 bytes: as small as the smallest access to the page needs.
  struct Page {
    uint32_t shift;
    std::vector<Cell> cells;
  };

  Page& page(uint64_t number);
  void refine(Page& page, uint32_t shift);
  void read(Cell& cell, const Actor& actor, const Epoch& epoch, Found& found);
  void write(Cell& cell, const Actor& actor, const Epoch& epoch, Found& found);

  std::unordered_map<uint64_t, std::unique_ptr<Page>> pages_;
  std::vector<std::pair<uint64_t, Page*>> recent_ = std::vector<std::pair<uint64_t, Page*>>(kRecent);
  AccessSets sets_;

  static constexpr size_t kRecent = 256;
};

}  // namespace parc
