// The thread team that runs compiled programs: a C interface, called from Python and from compiled code.
#pragma once

#define PARC_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

// A team of `nthreads` >= 1 threads, of which the caller of `parc_team_run` is one; null when that is not possible.
PARC_API void* parc_team_create(int nthreads);

// Ends the team's threads. No run may be under way or follow.
PARC_API void parc_team_destroy(void* team);

PARC_API int parc_team_size(void* team);

// Calls `entry` once on every thread of the team and returns when all are done. Each thread gets its own copy of the
// `argc` pointers in `argv`, in which slot 0 points to the thread's number (an int64_t; the caller is number 0).
// Concurrent calls take turns. Returns 0, or an errno value when the threads could not be started.
PARC_API int parc_team_run(void* team, void (*entry)(void**), void** argv, int argc);

// Called by all threads of the current run, equally often: returns when all have arrived. Nothing outside a run.
PARC_API void parc_team_barrier(void);

#ifdef __cplusplus
}
#endif
