// A CUDA program that needs nothing but a driver: it looks for libcuda.so.1 as every CUDA program does, says which file
// that was and what the driver says of itself, and has each device double some numbers. One line each:
//   library FILE | library none: WHY
//   version N            cuDriverGetVersion, 12040 for CUDA 12.4
//   init CODE            cuInit: 0, or CUDA's error
//   devices N
//   device UUID memory RESULT kernel RESULT NAME
// A RESULT is `ok`, or the step that failed and CUDA's error: `load:218`.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBERS = 32, NO_FUNCTION = -1 };

// Compiled by the driver, for whatever device there is: that takes another of its libraries.
static const char doubling[] =
    ".version 6.0\n.target sm_52\n.address_size 64\n"
    ".visible .entry doubling(.param .u64 numbers) {\n"
    " .reg .b32 %r<4>;\n .reg .b64 %rd<5>;\n"
    " ld.param.u64 %rd1, [numbers];\n cvta.to.global.u64 %rd2, %rd1;\n"
    " mov.u32 %r1, %tid.x;\n mul.wide.u32 %rd3, %r1, 4;\n add.s64 %rd4, %rd2, %rd3;\n"
    " ld.global.u32 %r2, [%rd4];\n add.s32 %r3, %r2, %r2;\n st.global.u32 [%rd4], %r3;\n ret;\n}\n";

static void *library;

// A pointer to a function that takes anything: the callers know what.
typedef int (*function)();
static int missing() { return NO_FUNCTION; }
static function get(const char *name) {
  function found = (function)dlsym(library, name);
  return found ? found : missing;
}

static char failed[2][64];
static int try_step(int part, const char *step, int result) {
  if (result == 0) return 1;
  snprintf(failed[part], sizeof failed[part], "%s:%d", step, result);
  return 0;
}

// In `failed` is what failed, of the memory and of the kernel.
static void compute(int device) {
  void *context = NULL, *module = NULL, *kernel = NULL;
  unsigned long long memory = 0;
  unsigned numbers[NUMBERS], back[NUMBERS];
  void *parameters[] = {&memory};
  for (unsigned i = 0; i < NUMBERS; i++) numbers[i] = 7 * i + 1;
  memset(back, 0, sizeof back);
  strcpy(failed[0], "ok");
  strcpy(failed[1], "not-tried");
  if (!try_step(0, "context", get("cuDevicePrimaryCtxRetain")(&context, device)) ||
      !try_step(0, "current", get("cuCtxSetCurrent")(context)) ||
      !try_step(0, "allocate", get("cuMemAlloc_v2")(&memory, sizeof numbers)) ||
      !try_step(0, "copy-in", get("cuMemcpyHtoD_v2")(memory, numbers, sizeof numbers)) ||
      !try_step(0, "copy-out", get("cuMemcpyDtoH_v2")(back, memory, sizeof back)) ||
      !try_step(0, "compare", memcmp(numbers, back, sizeof back) != 0))
    return;
  strcpy(failed[1], "ok");
  if (!try_step(1, "load", get("cuModuleLoadData")(&module, doubling)) ||
      !try_step(1, "find", get("cuModuleGetFunction")(&kernel, module, "doubling")) ||
      !try_step(1, "launch", get("cuLaunchKernel")(kernel, 1, 1, 1, NUMBERS, 1, 1, 0, NULL, parameters, NULL)) ||
      !try_step(1, "wait", get("cuCtxSynchronize")()) ||
      !try_step(1, "copy-out", get("cuMemcpyDtoH_v2")(back, memory, sizeof back)))
    return;
  for (int i = 0; i < NUMBERS; i++)
    if (!try_step(1, "compare", back[i] != 2 * numbers[i])) return;
}

int main(void) {
  Dl_info info;
  int version = 0, count = 0;
  library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) {
    printf("library none: %s\n", dlerror());
    return 1;
  }
  char *file = dladdr(dlsym(library, "cuDriverGetVersion"), &info) ? realpath(info.dli_fname, NULL) : NULL;
  printf("library %s\n", file ? file : "unknown");
  get("cuDriverGetVersion")(&version);
  int code = get("cuInit")(0);
  printf("version %d\ninit %d\n", version, code);
  if (code == 0) get("cuDeviceGetCount")(&count);
  printf("devices %d\n", count);
  for (int i = 0; i < count; i++) {
    int device = 0;
    unsigned char id[16] = {0};
    char name[256] = "";
    get("cuDeviceGet")(&device, i);
    // The newer one tells a part of a device apart.
    get(dlsym(library, "cuDeviceGetUuid_v2") ? "cuDeviceGetUuid_v2" : "cuDeviceGetUuid")(id, device);
    get("cuDeviceGetName")(name, sizeof name, device);
    compute(device);
    printf("device GPU-");
    for (int byte = 0; byte < 16; byte++)
      printf("%s%02x", byte == 4 || byte == 6 || byte == 8 || byte == 10 ? "-" : "", id[byte]);
    printf(" memory %s kernel %s %s\n", failed[0], failed[1], name);
  }
  return 0;
}
