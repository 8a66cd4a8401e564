#include "launch.h"

namespace {

struct Launches {
  parc_launcher launcher = nullptr;
  void* context = nullptr;
  int failure = 0;
};

thread_local Launches launches;

}  // namespace

extern "C" {

void parc_set_launcher(parc_launcher launcher, void* context) { launches = {launcher, context, 0}; }

void parc_launch(int64_t kernel, int64_t grid, int64_t block, int64_t shared_bytes, int64_t cooperative, void** argv,
                 int64_t argc) {
  if (launches.failure) return;
  launches.failure = launches.launcher ? launches.launcher(launches.context, kernel, grid, block, shared_bytes,
                                                           cooperative, argv, argc)
                                       : -1;
}

int parc_launch_failure(void) { return launches.failure; }
}
