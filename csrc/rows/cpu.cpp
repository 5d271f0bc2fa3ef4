#include "rows/rows.h"

#include <cstring>

namespace ecamp::rows::ECAMP_LANE {

void gather_range(const Params& p, int64_t begin, int64_t end) {
  if (p.bytes == 0) return;  // empty tensors have no address
  for (int64_t i = begin; i < end; ++i) {
    char* out = p.out + i * p.bytes;
    if (p.index[i] < 0) std::memset(out, 0, p.bytes);
    else std::memcpy(out, p.x + p.index[i] * p.bytes, p.bytes);
  }
}

}  // namespace ecamp::rows::ECAMP_LANE
