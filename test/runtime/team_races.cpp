// REQUIRES: thread-sanitizer
// RUN: %cxx -std=c++17 -O1 -g -fsanitize=thread -I%native %s %native/team.cpp -o %t -pthread
// RUN: %t

// ThreadSanitizer watches two callers share a team that has more threads than most machines have cores: what a thread
// wrote before a barrier is visible to all after it, and so are a run's results to its caller.

#include <cstdint>
#include <cstdio>
#include <thread>

#include "team.h"

constexpr int kThreads = 6;
constexpr int kSteps = 20;
constexpr int kRuns = 10;

// argv: the thread's number, and one number a thread.
void add_neighbours(void** argv) {
  const int64_t me = *static_cast<int64_t*>(argv[0]);
  int64_t* data = static_cast<int64_t*>(argv[1]);
  data[me] = me;
  for (int step = 0; step < kSteps; ++step) {
    parc_team_barrier();
    const int64_t theirs = data[(me + 1) % kThreads];
    parc_team_barrier();
    data[me] = theirs + 1;
  }
}

bool call(void* team) {
  for (int run = 0; run < kRuns; ++run) {
    int64_t data[kThreads];
    void* argv[] = {nullptr, data};
    if (parc_team_run(team, add_neighbours, argv, 2) != 0) return false;
    for (int64_t i = 0; i < kThreads; ++i) {
      if (data[i] != (i + kSteps) % kThreads + kSteps) return false;
    }
  }
  return true;
}

int main() {
  void* team = parc_team_create(kThreads);
  bool first = false, second = false;
  std::thread one([&] { first = call(team); });
  std::thread two([&] { second = call(team); });
  one.join();
  two.join();
  parc_team_destroy(team);
  if (first && second) return 0;
  std::puts("wrong result");
  return 1;
}
