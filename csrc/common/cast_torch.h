// Tensors as typed pointers (cast.h), for bindings.
#pragma once

#include <optional>

#include "common/cast.h"
#include "common/pixels.h"
#include "common/torch.h"

namespace ecamp {

inline Type type_of(const Tensor& t, const char* op, const char* name) {
  if (t.scalar_type() == ScalarType::Float) return Type::f32;
  if (t.scalar_type() == ScalarType::BFloat16) return Type::bf16;
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Half, op, ": ", name,
                  " must be float32, bfloat16 or float16");
  return Type::f16;
}

inline In in_of(const Tensor& t, const char* op, const char* name) {
  return {t.const_data_ptr(), type_of(t, op, name)};
}

inline Out out_of(const Tensor& t, const char* op, const char* name) {
  return {t.mutable_data_ptr(), type_of(t, op, name)};
}

// A contiguous floating tensor of `dim` axes.
inline void check_float(const Tensor& t, const char* op, const char* name, int64_t dim) {
  type_of(t, op, name);
  STD_TORCH_CHECK(t.dim() == dim, op, ": ", name, " must have ", dim, " axes, has ", t.dim());
  STD_TORCH_CHECK(t.is_contiguous(), op, ": ", name, " must be contiguous");
}

// A tensor of another shape and type on the device of `t`, not filled.
inline Tensor new_shape(const Tensor& t, std::initializer_list<int64_t> shape, ScalarType type) {
  return torch::stable::new_empty(t, torch::headeronly::IntHeaderOnlyArrayRef(shape.begin(), shape.size()), type);
}

inline Pixels pixels_of(const Tensor& t, const char* op, const char* name) {
  STD_TORCH_CHECK(t.dim() == 4, op, ": ", name, " must have 4 axes, has ", t.dim());
  STD_TORCH_CHECK(t.numel() == 0 || t.size(3) == 1 || t.stride(3) == 1, op, ": ", name,
                  " must have the pixels of a row side by side");
  return {in_of(t, op, name), t.size(0),   t.size(1),   t.size(2),
          t.size(3),          t.stride(0), t.stride(1), t.stride(2)};
}

}  // namespace ecamp
