#include "common/lanes.h"

#include <atomic>
#include <cstring>

namespace ecamp {
namespace {

int machine() {
#ifdef ECAMP_X86
  if (__builtin_cpu_supports("x86-64-v4")) return static_cast<int>(Lane::v4);
  if (__builtin_cpu_supports("x86-64-v3")) return static_cast<int>(Lane::v3);
#endif
  return static_cast<int>(Lane::baseline);
}

int first_choice() {
  const char* wanted = std::getenv("ECAMP_CPU_LANE");
  const int best = machine();
  if (wanted != nullptr && std::strcmp(wanted, "baseline") == 0) return 0;
  if (wanted != nullptr && std::strcmp(wanted, "v3") == 0) return best < 1 ? best : 1;
  return best;
}

std::atomic<int>& current() {
  static std::atomic<int> value{first_choice()};
  return value;
}

}  // namespace

Lane lane() { return static_cast<Lane>(current().load(std::memory_order_relaxed)); }

}  // namespace ecamp

// For tests and `ecamp kernels`: sets the lane (0 baseline, 1 v3, 2 v4; a lane above the machine's best
// sets that, a negative number changes nothing) and returns the one now in use.
extern "C" __attribute__((visibility("default"))) int ecamp_cpu_lane(int wanted) {
  if (wanted >= 0) ecamp::current().store(wanted < ecamp::machine() ? wanted : ecamp::machine());
  return ecamp::current().load();
}
