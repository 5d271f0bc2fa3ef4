#include "select_rows/select_rows.h"

#include <string.h>

namespace ecamp::select_rows::ECAMP_LANE {

int64_t count_true(const uint8_t* mask, int64_t begin, int64_t end) {
  int64_t total = 0;
  for (int64_t i = begin; i < end; i += 1 << 12) {  // short sums of 32 bits vectorise best
    const int64_t last = end - i < 1 << 12 ? end : i + (1 << 12);
    int32_t part = 0;
    for (int64_t j = i; j < last; ++j) part += mask[j] != 0;
    total += part;
  }
  return total;
}

void write_true(const uint8_t* mask, int64_t begin, int64_t end, int64_t* out, int64_t count) {
  int64_t done = 0, i = begin;
  // Without a branch per byte: every index is written, and the next one overwrites it unless its
  // byte was set. Stops when all are found, so nothing is written past the end.
  for (; i + 8 <= end && done + 8 <= count; i += 8) {
    uint64_t eight;
    memcpy(&eight, mask + i, 8);
    if (eight == 0) continue;
    for (int64_t k = 0; k < 8; ++k) {
      out[done] = i + k;
      done += mask[i + k] != 0;
    }
  }
  for (; done < count && i < end; ++i)
    if (mask[i] != 0) out[done++] = i;
}

}  // namespace ecamp::select_rows::ECAMP_LANE
