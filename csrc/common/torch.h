// Common to every binding: checks that name op and argument, outputs, the current stream.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

namespace ecamp {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check(const Tensor& t, const char* op, const char* name, ScalarType type, int64_t dim) {
  STD_TORCH_CHECK(t.scalar_type() == type, op, ": ", name, " has the wrong dtype");
  STD_TORCH_CHECK(t.dim() == dim, op, ": ", name, " must have ", dim, " axes, has ", t.dim());
  STD_TORCH_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous");
}

// Same shape and device, another dtype, not filled.
inline Tensor new_like(const Tensor& t, ScalarType type) {
  return torch::stable::new_empty(t, t.sizes(), type);
}

// Linking the symbol would make the library fail to load with a CPU-only torch; so it is looked up
// in the already loaded libtorch_cuda, once.
inline void* current_cuda_stream(int32_t device) {
  using Getter = int32_t (*)(int32_t, void**);
  static const Getter getter = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return library == nullptr
               ? Getter{nullptr}
               : reinterpret_cast<Getter>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
  }();
  STD_TORCH_CHECK(getter != nullptr, "ecamp: this torch has no CUDA streams");
  void* stream = nullptr;
  STD_TORCH_CHECK(getter(device, &stream) == 0, "ecamp: no current CUDA stream");
  return stream;
}

}  // namespace ecamp
