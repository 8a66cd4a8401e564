#include "team.h"

#include <pthread.h>

#include <cerrno>
#include <cfenv>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <system_error>
#include <thread>
#include <vector>

#include "counter.h"

namespace parc {
namespace {

// What all threads are asked to do in one run.
struct Job {
  void (*entry)(void**) = nullptr;
  void** argv = nullptr;
  int argc = 0;
  std::fenv_t floating_point{};
};

class Crew;

// What one thread of a crew has of its own.
struct alignas(64) Member {
  Crew* crew = nullptr;
  int64_t number = 0;
  std::vector<void*> argv;
  Patience patience;
};

// The running threads of a team: workers 1..size-1 sleep in `started_` between runs.
class Crew {
 public:
  explicit Crew(int size) : size_(size), members_(size) {
    for (int64_t number = 0; number < size; ++number) {
      members_[number].crew = this;
      members_[number].number = number;
    }
    try {
      for (int number = 1; number < size; ++number) workers_.emplace_back([this, number] { work(members_[number]); });
    } catch (const std::system_error&) {
      stop();
      throw;
    }
  }

  ~Crew() { stop(); }
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  void run(const Job& job);

  // One word serves all barriers of a run: the thread that completes a multiple of `size_` arrivals releases the others.
  void barrier(Member& member) {
    const uint64_t arrival = arrivals_.increment();
    const uint64_t last = (arrival + size_ - 1) / size_ * size_;
    if (arrival == last) {
      arrivals_.wake();
    } else {
      arrivals_.wait(last, member.patience);
    }
  }

 private:
  void work(Member& member);
  void perform(Member& member);
  void stop();

  const uint64_t size_;
  Counter started_;   // runs begun
  Counter arrivals_;  // threads arrived at barriers
  Job job_;
  bool stopping_ = false;
  std::vector<Member> members_;
  std::vector<std::thread> workers_;
};

thread_local Member* current = nullptr;

void Crew::run(const Job& job) {
  job_ = job;
  started_.increment();
  started_.wake();
  Member* outer = current;
  perform(members_[0]);
  current = outer;
}

void Crew::work(Member& member) {
  for (uint64_t run = 1;; ++run) {
    // However long the last pause was: runs often follow each other closely.
    Patience patience;
    started_.wait(run, patience);
    if (stopping_) return;
    // All threads round and treat denormals as the caller does, or results would depend on who computes them.
    std::fesetenv(&job_.floating_point);
    perform(member);
  }
}

void Crew::perform(Member& member) {
  current = &member;
  member.argv.assign(job_.argv, job_.argv + job_.argc);
  member.argv[0] = &member.number;
  job_.entry(member.argv.data());
  barrier(member);
}

void Crew::stop() {
  stopping_ = true;
  started_.increment();
  started_.wake();
  for (std::thread& worker : workers_) worker.join();
}

struct Team;

// Every live team, so that a forked child can give up threads that it does not have.
struct Registry {
  std::mutex mutex;
  std::set<Team*> teams;
};

Registry& registry() {
  static Registry* instance = new Registry;  // never destroyed: threads may outlive static destructors
  return *instance;
}

struct Team {
  explicit Team(int size) : size(size), crew(std::make_unique<Crew>(size)) {
    std::lock_guard<std::mutex> lock(registry().mutex);
    registry().teams.insert(this);
  }

  ~Team() {
    std::lock_guard<std::mutex> lock(registry().mutex);
    registry().teams.erase(this);
  }

  void run(const Job& job) {
    std::lock_guard<std::mutex> lock(turn);
    if (!crew) crew = std::make_unique<Crew>(size);
    crew->run(job);
  }

  // In a forked child: the threads are gone and a lock may be held by one of them for ever.
  void forget_threads() {
    crew.release();  // leaked: joining or destroying threads that do not exist is undefined
    new (&turn) std::mutex;
  }

  const int size;
  std::mutex turn;
  std::unique_ptr<Crew> crew;
};

void before_fork() { registry().mutex.lock(); }

void after_fork_in_parent() { registry().mutex.unlock(); }

void after_fork_in_child() {
  current = nullptr;
  for (Team* team : registry().teams) team->forget_threads();
  registry().mutex.unlock();
}

const int fork_handlers = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);

}  // namespace
}  // namespace parc

extern "C" {

void* parc_team_create(int nthreads) {
  if (nthreads < 1 || parc::fork_handlers != 0) return nullptr;
  try {
    return new parc::Team(nthreads);
  } catch (const std::exception&) {
    return nullptr;
  }
}

void parc_team_destroy(void* team) { delete static_cast<parc::Team*>(team); }

int parc_team_size(void* team) { return static_cast<parc::Team*>(team)->size; }

int parc_team_run(void* team, void (*entry)(void**), void** argv, int argc) {
  if (argc < 1) return EINVAL;
  parc::Job job{entry, argv, argc, {}};
  std::fegetenv(&job.floating_point);
  try {
    static_cast<parc::Team*>(team)->run(job);
  } catch (const std::system_error& error) {
    return error.code().value();
  } catch (const std::bad_alloc&) {
    return ENOMEM;
  }
  return 0;
}

void parc_team_barrier(void) {
  if (parc::current) parc::current->crew->barrier(*parc::current);
}
}
