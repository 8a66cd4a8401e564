// A stand-in of the CUDA driver's library, as far as parc calls it: it notes calls and answers as it is told to, so that
// the runtime is tested, with NVIDIA's own Python bindings, on machines without a GPU.
#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <map>
#include <sstream>
#include <string>

#define API extern "C" __attribute__((visibility("default")))

namespace {

std::map<std::string, int64_t> settings;
std::ostringstream notes;
std::string shown;
int64_t handles = 0;

int64_t setting(const std::string& name, int64_t otherwise) {
  auto found = settings.find(name);
  return found == settings.end() ? otherwise : found->second;
}

// Notes a call; the result code that it is to have.
template <typename... Values>
int call(const char* name, const Values&... values) {
  notes << name;
  ((notes << ' ' << values), ...);
  notes << '\n';
  return static_cast<int>(setting(std::string("result of ") + name, 0));
}

void* handle() { return reinterpret_cast<void*>(++handles); }

int64_t number(const void* pointer) { return reinterpret_cast<int64_t>(pointer); }

std::map<int64_t, std::string> functions;

int launch(const char* name, void* function, unsigned grid, unsigned block, unsigned shared, void* stream, void** argv) {
  std::ostringstream fields;
  for (int64_t i = 0; i < setting("fields of " + functions[number(function)], 0); ++i)
    fields << ' ' << *static_cast<int64_t*>(argv[i]);
  // The first field is the address of the arena, whose first word is the status.
  if (int64_t status = setting("status", 0)) **static_cast<int64_t**>(argv[0]) = status;
  return call(name, functions[number(function)], grid, block, shared, number(stream), "|" + fields.str());
}

}  // namespace

API void fake_reset() {
  settings.clear();
  notes.str("");
}
API void fake_set(const char* name, int64_t value) { settings[name] = value; }
API const char* fake_notes() {
  shown = notes.str();
  notes.str("");
  return shown.c_str();
}

API int cuGetProcAddress_v2(const char* symbol, void** function, int, uint64_t, int* status) {
  *function = dlsym(RTLD_DEFAULT, symbol);
  if (status) *status = *function ? 0 : 1;
  return *function ? 0 : 500;
}
API int cuInit(unsigned) { return call("cuInit"); }
API int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}
API int cuGetErrorString(int, const char** text) {
  *text = "as the test asked";
  return 0;
}
API int cuDeviceGetCount(int* count) {
  *count = static_cast<int>(setting("count", 1));
  return 0;
}
API int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return 0;
}
API int cuDeviceGetName(char* name, int length, int) {
  strncpy(name, "Stand-in", length);
  return 0;
}
API int cuDeviceGetAttribute(int* value, int attribute, int) {
  static const std::map<int, std::pair<const char*, int>> known = {
      {16, {"multiprocessors", 4}}, {75, {"major", 9}},        {76, {"minor", 0}},
      {95, {"cooperative", 1}},     {97, {"shared", 232448}},
  };
  const auto& [name, otherwise] = known.at(attribute);
  *value = static_cast<int>(setting(name, otherwise));
  return 0;
}
API int cuDevicePrimaryCtxRetain(void** context, int) {
  *context = handle();
  return 0;
}
API int cuCtxPushCurrent(void*) { return call("push"); }
API int cuCtxPopCurrent(void** context) {
  *context = nullptr;
  return call("pop");
}
API int cuCtxSynchronize() { return call("cuCtxSynchronize"); }
API int cuStreamSynchronize(void* stream) { return call("cuStreamSynchronize", number(stream)); }
API int cuStreamCreate(void** stream, unsigned flags) {
  *stream = reinterpret_cast<void*>(77);
  return call("cuStreamCreate", flags);
}
API int cuStreamDestroy(void*) { return call("cuStreamDestroy"); }
API int cuStreamBeginCapture(void* stream, int mode) { return call("cuStreamBeginCapture", number(stream), mode); }
API int cuStreamEndCapture(void* stream, void** graph) {
  *graph = handle();
  return call("cuStreamEndCapture", number(stream));
}
API int cuGraphInstantiateWithFlags(void** executable, void*, uint64_t) {
  *executable = handle();
  return call("cuGraphInstantiate");
}
API int cuGraphLaunch(void*, void* stream) { return call("cuGraphLaunch", number(stream)); }
API int cuGraphDestroy(void*) { return call("cuGraphDestroy"); }
API int cuGraphExecDestroy(void*) { return call("cuGraphExecDestroy"); }
API int cuModuleLoadData(void** module, const void* image) {
  *module = handle();
  return call("cuModuleLoadData", static_cast<const char*>(image));
}
API int cuModuleLoadDataEx(void** module, const void* image, unsigned count, int* options, void** values) {
  *module = handle();
  int result = call("cuModuleLoadDataEx", static_cast<const char*>(image), count, options[0], options[1]);
  // 5 is the buffer of the error log, whose size is the next value.
  if (result) strncpy(static_cast<char*>(values[0]), "ptxas: line 3: no such instruction", number(values[1]));
  return result;
}
API int cuModuleUnload(void*) { return call("cuModuleUnload"); }
API int cuModuleGetFunction(void** function, void*, const char* name) {
  *function = handle();
  functions[number(*function)] = name;
  return call("cuModuleGetFunction", name);
}
API int cuFuncGetAttribute(int* value, int attribute, void*) {
  // 0: threads of a block, 1: static shared memory
  *value = static_cast<int>(attribute == 0 ? setting("threads", 1024) : setting("static shared", 0));
  return 0;
}
API int cuFuncSetAttribute(void* function, int attribute, int value) {
  return call("cuFuncSetAttribute", functions[number(function)], attribute, value);
}
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int, size_t) {
  *blocks = static_cast<int>(setting("occupancy", 1));
  return 0;
}
API int cuLaunchKernel(void* function, unsigned x, unsigned, unsigned, unsigned block, unsigned, unsigned, unsigned shared,
                       void* stream, void** argv, void** extra) {
  return extra ? 1 : launch("cuLaunchKernel", function, x, block, shared, stream, argv);
}
API int cuLaunchCooperativeKernel(void* function, unsigned x, unsigned, unsigned, unsigned block, unsigned, unsigned,
                                  unsigned shared, void* stream, void** argv) {
  return launch("cuLaunchCooperativeKernel", function, x, block, shared, stream, argv);
}
