// Vectors of float as wide as the lane's registers, by the compiler's own vector type. For loops that
// gcc does not vectorise well by itself.
#pragma once

#include <cstdint>

namespace ecamp {
namespace {  // one copy per lane

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef int32_t IntVec __attribute__((vector_size(kLanes * 4)));
typedef float LooseVec __attribute__((vector_size(kLanes * 4), aligned(4), may_alias));

inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
inline void save(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }

}  // namespace
}  // namespace ecamp
