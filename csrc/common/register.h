// The end of every binding: sets the device of a call, checks its launch, and registers the functions
// with torch.
#pragma once

#include "common/torch.h"

namespace ecamp {

// Makes the device of `t` the current one for as long as it lives. One per CUDA function, before the
// first allocation.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& t) : device_(t.get_device_index()), guard_(device_) {}
  void* stream() const { return current_cuda_stream(device_); }

 private:
  int32_t device_;
  torch::stable::accelerator::DeviceGuard guard_;
};

// `status` is the cudaError_t of a launch.
inline void launched(int status, const char* op) {
  STD_TORCH_CHECK(status == 0, op, ": launch failed, cudaError ", status);
}

}  // namespace ecamp

// ECAMP_REGISTER("name", cpu, gpu): the functions that compute an op of the schema on the processor
// and on a GPU. Used inside the op's namespace. Without CUDA `gpu` is compiled, but not kept: its
// launch has no kernel to link with.
#define ECAMP_REGISTER_ON(key, name, function) \
  STABLE_TORCH_LIBRARY_IMPL(ecamp, key, m) { m.impl(name, TORCH_BOX(&function)); }
#ifdef ECAMP_WITH_CUDA
#define ECAMP_REGISTER(name, cpu, gpu) \
  ECAMP_REGISTER_ON(CPU, name, cpu)    \
  ECAMP_REGISTER_ON(CUDA, name, gpu)
#else
#define ECAMP_REGISTER(name, cpu, gpu) \
  ECAMP_REGISTER_ON(CPU, name, cpu)    \
  static_assert(sizeof(&gpu) > 0);
#endif
