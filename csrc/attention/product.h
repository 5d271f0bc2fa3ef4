// The product of small matrices that attention consists of, and exp of a vector. gcc does not keep
// a block of sums in registers when it vectorises plain loops.
#pragma once

#include <cstdint>

#include "common/exp.h"
#include "common/vector.h"

namespace ecamp::attention {
namespace {  // one copy per lane

// ECAMP_LOW, ECAMP_HIGH: interleave the lower or upper halves of two vectors.
#if defined(__AVX512F__)
constexpr int kRowBlock = 6, kColumnBlock = 4;
#define ECAMP_LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define ECAMP_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX2__)
constexpr int kRowBlock = 6, kColumnBlock = 2;
#define ECAMP_LOW 0, 8, 1, 9, 2, 10, 3, 11
#define ECAMP_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
constexpr int kRowBlock = 6, kColumnBlock = 2;
#define ECAMP_LOW 0, 4, 1, 5
#define ECAMP_HIGH 2, 6, 3, 7
#endif

inline float sum_of(Vec v) {
  float total = 0.0f;
  for (int i = 0; i < kLanes; ++i) total += v[i];
  return total;
}

// fast_exp on a vector: gcc 12 sees control flow in its two range checks and does not vectorise a
// loop over it. The results are equal except for fused multiply-adds, and where two whole numbers
// are equally near.
inline Vec exp_of(Vec x) {
  const Vec zero{}, above = zero + kExpMost, below = zero + kExpLeast;
  Vec clamped = x > above ? above : x;
  clamped = clamped < below ? below : clamped;
  const Vec scaled = clamped * kExpLog2e;
  const IntVec n =
      __builtin_convertvector(scaled + (scaled < zero ? zero - 0.5f : zero + 0.5f), IntVec);
  const Vec p = exp_fraction(clamped, __builtin_convertvector(n, Vec));
  const Vec power = reinterpret_cast<Vec>((n + 127) << 23);
  return x < below ? zero : p * power;
}

struct Matrix {  // element (r, c) lies at data[r * row + c * column]
  const float* data;
  int64_t row, column;
};

// c[R, V * kLanes] = a[R, depth] b[depth, V * kLanes], or += when `add`. Every element is summed
// over depth in order, so a result does not depend on its block.
template <int R, int V>
inline void block_product(Matrix a, const float* b, int64_t b_row, float* c, int64_t c_row,
                          int64_t depth, bool add) {
  Vec sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[r][v] = add ? load(c + r * c_row + v * kLanes) : Vec{};
  for (int64_t k = 0; k < depth; ++k) {
    Vec right[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) right[v] = load(b + k * b_row + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const float left = a.data[r * a.row + k * a.column];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] += left * right[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) save(c + r * c_row + v * kLanes, sum[r][v]);
}

template <int R, int V>
void row_tail(int64_t rows, Matrix a, const float* b, int64_t b_row, float* c, int64_t c_row,
              int64_t depth, bool add) {
  if constexpr (R > 0) {
    if (rows == R) return block_product<R, V>(a, b, b_row, c, c_row, depth, add);
    row_tail<R - 1, V>(rows, a, b, b_row, c, c_row, depth, add);
  }
}

template <int V>
void column_block(int64_t rows, int64_t vectors, Matrix a, const float* b, int64_t b_row, float* c,
                  int64_t c_row, int64_t depth, bool add) {
  if constexpr (V > 0) {
    if (vectors < V)
      return column_block<V - 1>(rows, vectors, a, b, b_row, c, c_row, depth, add);
    int64_t r = 0;
    for (; r + kRowBlock <= rows; r += kRowBlock)
      block_product<kRowBlock, V>({a.data + r * a.row, a.row, a.column}, b, b_row, c + r * c_row,
                                  c_row, depth, add);
    row_tail<kRowBlock - 1, V>(rows - r, {a.data + r * a.row, a.row, a.column}, b, b_row,
                               c + r * c_row, c_row, depth, add);
  }
}

// c[rows, columns] (+)= a[rows, depth] b[depth, columns]; columns is a multiple of kLanes.
void product(int64_t rows, int64_t columns, int64_t depth, Matrix a, const float* b, int64_t b_row,
             float* c, int64_t c_row, bool add) {
  int64_t left = columns / kLanes;
  for (int64_t at = 0; left > 0;) {  // blocks of about equal width keep more sums in flight
    const int64_t blocks = (left + kColumnBlock - 1) / kColumnBlock;
    const int64_t vectors = (left + blocks - 1) / blocks;
    column_block<kColumnBlock>(rows, vectors, a, b + at, b_row, c + at, c_row, depth, add);
    at += vectors * kLanes;
    left -= vectors;
  }
}

// to[columns, rows] = factor * from[rows, columns] in squares; rows and columns are multiples of kLanes.
// A square is transposed by interleaving its upper and lower half log2(kLanes) times.
void transpose(const float* from, int64_t rows, int64_t columns, float factor, float* to) {
  for (int64_t r = 0; r < rows; r += kLanes)
    for (int64_t c = 0; c < columns; c += kLanes) {
      Vec x[kLanes], y[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) x[i] = load(from + (r + i) * columns + c) * factor;
#pragma GCC unroll 4
      for (int stage = 1; stage < kLanes; stage *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < kLanes / 2; ++i) {
          y[2 * i] = __builtin_shufflevector(x[i], x[i + kLanes / 2], ECAMP_LOW);
          y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + kLanes / 2], ECAMP_HIGH);
        }
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) x[i] = y[i];
      }
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) save(to + (c + i) * rows + r, x[i]);
    }
}

#undef ECAMP_LOW
#undef ECAMP_HIGH

}  // namespace
}  // namespace ecamp::attention
