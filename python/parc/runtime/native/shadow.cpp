#include "shadow.h"

#include <algorithm>
#include <utility>

namespace parc {
namespace {

constexpr uint32_t kWordShift = 2;

// Whether both accesses are atomic for each other.
bool atomic_together(const Epoch& a, const Epoch& b) {
  if (a.scope == kNoScope || b.scope == kNoScope) return false;
  return block_of(a.thread) == block_of(b.thread) || (a.scope == kDeviceScope && b.scope == kDeviceScope);
}

// Whether the earlier access `a` and `b`, which `actor` makes now, race.
bool races(const Epoch& a, const Actor& actor, const Epoch& b) {
  return a.time != 0 && (a.is_write || b.is_write) && !actor.is_after(a) && !atomic_together(a, b);
}

// Whether whatever conflicts with the access `a` conflicts with `b` too.
bool stands_for(const Epoch& b, const Epoch& a) { return b.is_write >= a.is_write && b.scope <= a.scope; }

bool are_alike(const Epoch& a, const Epoch& b) {
  return block_of(a.thread) == block_of(b.thread) && a.time == b.time && a.site == b.site && a.scope == b.scope &&
         a.is_write == b.is_write;
}

}  // namespace

void AccessSets::start(uint32_t block_size) {
  words_ = (block_size + 63) / 64;
  groups_.assign(1, Group{});
  bits_.assign(words_, 0);
  free_ = 0;
}

uint32_t AccessSets::make(uint32_t next, const Epoch& access) {
  uint32_t group = free_;
  if (group == 0) {
    group = static_cast<uint32_t>(groups_.size());
    groups_.emplace_back();
    bits_.resize(bits_.size() + words_);
  } else {
    free_ = groups_[group].next;
  }
  groups_[group] = {next, access};
  std::fill_n(bits_.begin() + size_t{group} * words_, words_, 0);
  mark(group, access.thread);
  return group;
}

void AccessSets::free(uint32_t group) { groups_[group].next = std::exchange(free_, group); }

// Adds a thread to a group; returns whether it was not there.
bool AccessSets::mark(uint32_t group, ThreadId id) {
  uint64_t& word = bits_[size_t{group} * words_ + thread_of(id) / 64];
  const uint64_t bit = uint64_t{1} << thread_of(id) % 64;
  return !(std::exchange(word, word | bit) & bit);
}

// The first access of a group that passes a test; time 0 for none.
template <typename Test>
Epoch AccessSets::find(uint32_t group, Test test) const {
  Epoch access = groups_[group].first;
  for (uint32_t word = 0; word < words_; ++word) {
    for (uint64_t rest = bits_[size_t{group} * words_ + word]; rest != 0; rest &= rest - 1) {
      access.thread = thread_id(block_of(access.thread), word * 64 + __builtin_ctzll(rest));
      if (test(access)) return access;
    }
  }
  return {};
}

void AccessSets::clear(Epoch& set) {
  for (uint32_t group = set.time == kMany ? set.thread : 0; group != 0;) {
    free(std::exchange(group, groups_[group].next));
  }
  set = {};
}

Epoch AccessSets::copy(const Epoch& set) {
  if (set.time != kMany) return set;
  uint32_t made = 0;
  for (uint32_t group = set.thread; group != 0; group = groups_[group].next) {
    made = make(made, Epoch{groups_[group].first});
    std::copy_n(bits_.begin() + size_t{group} * words_, words_, bits_.begin() + size_t{made} * words_);
  }
  return {made, kMany, 0, kNoScope, false};
}

bool AccessSets::add(Epoch& set, const Actor& actor, const Epoch& access) {
  if (set.time == 0) {
    set = access;
    return true;
  }
  if (set.time != kMany) {
    if (set.thread == access.thread && set.time == access.time && stands_for(set, access)) return false;
    if (stands_for(access, set) && actor.is_after(set)) {
      set = access;
      return true;
    }
  } else if (are_alike(groups_[set.thread].first, access)) {
    return mark(set.thread, access.thread);
  }
  prune(set, actor, access);
  return insert(set, access);
}

void AccessSets::prune(Epoch& set, const Actor& actor, const Epoch& access) {
  if (set.time != kMany) {
    if (stands_for(access, set) && actor.is_after(set)) set = {};
    return;
  }
  for (uint32_t group = set.thread, before = 0; group != 0;) {
    const uint32_t next = groups_[group].next;
    const Epoch& first = groups_[group].first;
    const auto is_open = [&](const Epoch& other) { return !actor.is_after(other); };
    if (stands_for(access, first) && (actor.clock->of_block(block_of(first.thread)) >= first.time ||
                                      find(group, is_open).time == 0)) {
      (before == 0 ? set.thread : groups_[before].next) = next;
      free(group);
    } else {
      before = group;
    }
    group = next;
  }
  if (set.thread == 0) set = {};
}

bool AccessSets::insert(Epoch& set, const Epoch& access) {
  if (set.time == 0) {
    set = access;
    return true;
  }
  if (set.time != kMany) set = {make(0, set), kMany, 0, kNoScope, false};
  for (uint32_t group = set.thread; group != 0; group = groups_[group].next) {
    if (are_alike(groups_[group].first, access)) return mark(group, access.thread);
  }
  set.thread = make(set.thread, access);
  return true;
}

Epoch AccessSets::conflict(const Epoch& set, const Actor& actor, const Epoch& access) const {
  if (set.time != kMany) return races(set, actor, access) ? set : Epoch{};
  for (uint32_t group = set.thread; group != 0; group = groups_[group].next) {
    const Epoch& first = groups_[group].first;
    if (actor.clock->of_block(block_of(first.thread)) >= first.time) continue;
    const Epoch found = find(group, [&](const Epoch& other) { return races(other, actor, access); });
    if (found.time != 0) return found;
  }
  return {};
}

void Shadow::read(Cell& cell, const Actor& actor, const Epoch& epoch, Found& found) {
  if (cell.write.time == 0) found.unset = true;
  if (races(cell.write, actor, epoch)) {
    found.race = cell.write;
  } else if (cell.write.scope != kNoScope) {  // there may be earlier writes among the others
    found.race = sets_.conflict(cell.others, actor, epoch);
  }
  if (found.race.time == 0 && sets_.add(cell.others, actor, epoch)) found.fresh = true;
}

void Shadow::write(Cell& cell, const Actor& actor, const Epoch& epoch, Found& found) {
  found.race = races(cell.write, actor, epoch) ? cell.write : sets_.conflict(cell.others, actor, epoch);
  if (found.race.time != 0) return;
  if (cell.others.time != 0) sets_.prune(cell.others, actor, epoch);
  if (cell.write.time != 0 && !(stands_for(epoch, cell.write) && actor.is_after(cell.write))) {
    sets_.insert(cell.others, cell.write);
  }
  cell.write = epoch;
}

Shadow::Found Shadow::access(uint64_t address, uint64_t bytes, const Actor& actor, const Epoch& epoch) {
  Found found;
  const uint64_t low_bits = address | bytes;
  const uint32_t shift = low_bits & 1 ? 0 : low_bits & 2 ? 1 : kWordShift;
  for (const uint64_t end = address + bytes; address < end;) {
    Page& here = page(address / kPageBytes);
    if (shift < here.shift) refine(here, shift);
    const uint64_t first = address % kPageBytes, count = std::min(end - address, kPageBytes - first);
    for (uint64_t i = first >> here.shift; i < (first + count) >> here.shift; ++i) {
      if (epoch.is_write) {
        write(here.cells[i], actor, epoch, found);
      } else {
        read(here.cells[i], actor, epoch, found);
      }
      if (found.race.time != 0) return found;
    }
    address += count;
  }
  return found;
}

Shadow::Page& Shadow::page(uint64_t number) {
  auto& [known, recent] = recent_[number % kRecent];
  if (recent == nullptr || known != number) {
    std::unique_ptr<Page>& found = pages_[number];
    if (!found) found = std::make_unique<Page>(Page{kWordShift, std::vector<Cell>(kPageBytes >> kWordShift)});
    known = number;
    recent = found.get();
  }
  return *recent;
}

void Shadow::refine(Page& page, uint32_t shift) {
  std::vector<Cell> cells;
  cells.reserve(kPageBytes >> shift);
  for (const Cell& cell : page.cells) {
    cells.push_back(cell);
    for (uint32_t i = 1; i < uint32_t{1} << (page.shift - shift); ++i) {
      cells.push_back({cell.write, sets_.copy(cell.others)});
    }
  }
  page.cells = std::move(cells);
  page.shift = shift;
}

void Shadow::forget(uint64_t address, uint64_t bytes) {
  for (uint64_t number = address / kPageBytes; number < (address + bytes) / kPageBytes; ++number) {
    const auto found = pages_.find(number);
    if (found == pages_.end()) continue;
    for (Cell& cell : found->second->cells) {
      sets_.clear(cell.others);
      cell.write = {};
    }
  }
}

void Shadow::start(uint32_t block_size) {
  pages_.clear();
  recent_.assign(kRecent, {0, nullptr});
  sets_.start(block_size);
}

}  // namespace parc
