// Two drivers in one: with STALE the one that an image wrongly brings along, which no kernel module fits; else one for a
// machine without GPUs: it has a device for each /dev/nvidia[0-9]* and computes on the CPU.
// FAKE_GPU_DEV: folder of the device nodes, /dev when it is not set.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NO_DEVICE = 100, JIT_COMPILER_NOT_FOUND = 221, DRIVER_MISMATCH = 803, UNKNOWN = 999, DEVICES_MAX = 64 };

#ifdef STALE
int cuDriverGetVersion(int *version) {
  *version = 11000;
  return 0;
}
int cuInit(unsigned flags) { return DRIVER_MISMATCH; }
#else
static int minors[DEVICES_MAX], devices;

static int usable(const char *name) {
  char path[4096];
  const char *dev = getenv("FAKE_GPU_DEV");
  snprintf(path, sizeof path, "%s/%s", dev ? dev : "/dev", name);
  int node = open(path, O_RDWR);
  return node >= 0 && close(node) == 0;
}

int cuDriverGetVersion(int *version) {
  *version = 12040;
  return 0;
}

int cuInit(unsigned flags) {
  char name[32];
  devices = 0;
  if (!usable("nvidiactl")) return NO_DEVICE;
  for (int minor = 0; minor < DEVICES_MAX; minor++) {
    snprintf(name, sizeof name, "nvidia%d", minor);
    if (usable(name)) minors[devices++] = minor;
  }
  if (devices == 0) return NO_DEVICE;
  return usable("nvidia-uvm") ? 0 : UNKNOWN;
}

int cuDeviceGetCount(int *count) {
  *count = devices;
  return 0;
}
int cuDeviceGet(int *device, int index) {
  *device = index;
  return 0;
}
int cuDeviceGetUuid(unsigned char *id, int device) {
  memset(id, 16 + minors[device], 16);
  return 0;
}
int cuDeviceGetName(char *name, int size, int device) {
  snprintf(name, size, "Simulated GPU");
  return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
  *context = &minors[device];
  return 0;
}
int cuCtxSetCurrent(void *context) { return 0; }
int cuCtxSynchronize(void) { return 0; }
int cuMemAlloc_v2(unsigned long long *memory, size_t size) {
  *memory = (unsigned long long)malloc(size);
  return 0;
}
int cuMemcpyHtoD_v2(unsigned long long memory, const void *from, size_t size) {
  memcpy((void *)memory, from, size);
  return 0;
}
int cuMemcpyDtoH_v2(void *to, unsigned long long memory, size_t size) {
  memcpy(to, (void *)memory, size);
  return 0;
}
// The real one finds its compiler as programs find the driver.
int cuModuleLoadData(void **module, const void *text) {
  *module = dlopen("libnvidia-ptxjitcompiler.so.1", RTLD_NOW);
  return *module ? 0 : JIT_COMPILER_NOT_FOUND;
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
  *function = module;
  return 0;
}
int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned block_y,
                   unsigned block_z, unsigned shared, void *stream, void **parameters, void **extra) {
  unsigned *numbers = *(unsigned **)parameters[0];
  for (unsigned i = 0; i < threads; i++) numbers[i] *= 2;
  return 0;
}
#endif
