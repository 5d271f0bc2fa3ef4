// One lane per machine: every cpu.cpp is compiled for x86-64-v4 (AVX-512), v3 (AVX2) and plain
// x86-64, and the binding calls the best that the processor has. Separate objects instead of
// target_clones, so that a test can select each lane and compare their bits
// (docs/decisions.md#a-lane-per-object).
//
// An op's header declares       ECAMP_LANES(void, mask_rows, (const Params&, int64_t, int64_t))
// its cpu.cpp defines it in     namespace ecamp::op::ECAMP_LANE { void mask_rows(...) {...} }
// its binding calls             ECAMP_LANE_CALL(mask_rows)(params, begin, end)
//
// cpu.cpp uses no inline function with external linkage (no std containers): see hostdevice.h.
#pragma once

#include <cstdint>
#include <cstdlib>

#ifndef ECAMP_LANE
#define ECAMP_LANE baseline
#endif

#ifdef ECAMP_X86
#define ECAMP_LANES(returns, name, arguments)  \
  namespace baseline { returns name arguments; } \
  namespace v3 { returns name arguments; }       \
  namespace v4 { returns name arguments; }
#define ECAMP_LANE_CALL(name)                    \
  (::ecamp::lane() == ::ecamp::Lane::v4   ? v4::name \
   : ::ecamp::lane() == ::ecamp::Lane::v3 ? v3::name \
                                          : baseline::name)
#else
#define ECAMP_LANES(returns, name, arguments) \
  namespace baseline { returns name arguments; }
#define ECAMP_LANE_CALL(name) baseline::name
#endif

namespace ecamp {

enum class Lane : int { baseline = 0, v3 = 1, v4 = 2 };

// The lane in use: the machine's best, or a lower one set by ECAMP_CPU_LANE=baseline|v3|v4 or
// `ecamp_cpu_lane`. Defined in common/lanes.cpp.
Lane lane();

namespace {  // NOLINT: on purpose one copy per file, see above

// Uninitialised local memory; for sizes known at run time only.
template <class T>
struct Scratch {
  explicit Scratch(int64_t count)
      : data(static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 64) / 64 * 64))) {
    if (data == nullptr) std::abort();
  }
  ~Scratch() { std::free(data); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T& operator[](int64_t i) { return data[i]; }
  T* data;
};

}  // namespace
}  // namespace ecamp
