// Rows of the three floating types <-> float, with the type known at run time: a kernel whose
// tensors may differ in type switches once per row instead of being compiled for every combination.
#pragma once

#include <cstdint>

#include "common/hostdevice.h"
#include "common/numeric.h"

namespace ecamp {

enum class Type : int32_t { f32, bf16, f16 };

// Calls `body` with a value of that type, for kernels that are compiled per type: on the host.
template <class Body>
static inline auto with_type(Type type, const Body& body) {
  if (type == Type::f32) return body(float{});
  if (type == Type::bf16) return body(BFloat16{});
  return body(Half{});
}

struct In {
  const void* data;
  Type type;
};
struct Out {
  void* data;
  Type type;
};

template <class T>
ECAMP_HD const T* cells(const In& in, int64_t at) {
  return static_cast<const T*>(in.data) + at;
}
template <class T>
ECAMP_HD T* cells(const Out& out, int64_t at) {
  return static_cast<T*>(out.data) + at;
}

// One value.
ECAMP_HD float value(const In& in, int64_t at) {
  if (in.type == Type::f32) return *cells<float>(in, at);
  if (in.type == Type::bf16) return to_float(*cells<BFloat16>(in, at));
  return to_float(*cells<Half>(in, at));
}

ECAMP_HD void set(const Out& out, int64_t at, float x) {
  if (out.type == Type::f32) return store(*cells<float>(out, at), x);
  if (out.type == Type::bf16) return store(*cells<BFloat16>(out, at), x);
  store(*cells<Half>(out, at), x);
}

// Values [at, at + n) as float: the tensor's own memory when it is float, else a copy in `room`.
ECAMP_HD const float* floats(const In& in, int64_t at, int64_t n, float* room) {
  if (in.type == Type::f32) return cells<float>(in, at);
  if (in.type == Type::bf16) {
    const BFloat16* from = cells<BFloat16>(in, at);
    for (int64_t i = 0; i < n; ++i) room[i] = to_float(from[i]);
  } else {
    const Half* from = cells<Half>(in, at);
    for (int64_t i = 0; i < n; ++i) room[i] = to_float(from[i]);
  }
  return room;
}

// Where to build values [at, ...) that `put` then writes: the output itself when it is float.
ECAMP_HD float* place(const Out& out, int64_t at, float* room) {
  return out.type == Type::f32 ? cells<float>(out, at) : room;
}

// Write `n` floats; nothing to do where `place` gave the output itself.
ECAMP_HD void put(const Out& out, int64_t at, int64_t n, const float* from) {
  if (out.type == Type::f32) {
    float* to = cells<float>(out, at);
    for (int64_t i = 0; from != to && i < n; ++i) to[i] = from[i];
  } else if (out.type == Type::bf16) {
    BFloat16* to = cells<BFloat16>(out, at);
    for (int64_t i = 0; i < n; ++i) store(to[i], from[i]);
  } else {
    Half* to = cells<Half>(out, at);
    for (int64_t i = 0; i < n; ++i) store(to[i], from[i]);
  }
}

}  // namespace ecamp
