#include "residual_norm/residual_norm.h"

#include "common/sum.h"

namespace ecamp::residual_norm::ECAMP_LANE {
namespace {

constexpr int kGroups = 16;  // Philox counters at once; each decides four columns

int64_t padded(int64_t width) { return (width + 4 * kGroups - 1) / (4 * kGroups) * (4 * kGroups); }

// philox() of common/philox.h for the column groups [first, first + kGroups) of a row, written as
// loops over the groups so that compilers vectorise it.
void draw(const Params& p, int64_t t, int64_t first, float* factor) {
  uint32_t c0[kGroups], c1[kGroups], c2[kGroups], c3[kGroups];
  for (int i = 0; i < kGroups; ++i) {
    c0[i] = static_cast<uint32_t>(p.positions[t]);
    c1[i] = static_cast<uint32_t>(first + i);
    c2[i] = static_cast<uint32_t>(p.samples[t]);
    c3[i] = p.step;
  }
  uint32_t k0 = static_cast<uint32_t>(p.seed), k1 = static_cast<uint32_t>(p.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < kGroups; ++i) {
      const uint64_t a = uint64_t{0xD2511F53u} * c0[i];
      const uint64_t b = uint64_t{0xCD9E8D57u} * c2[i];
      c0[i] = static_cast<uint32_t>(b >> 32) ^ c1[i] ^ k0;
      c2[i] = static_cast<uint32_t>(a >> 32) ^ c3[i] ^ k1;
      c1[i] = static_cast<uint32_t>(b);
      c3[i] = static_cast<uint32_t>(a);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int i = 0; i < kGroups; ++i) {
    factor[4 * i] = c0[i] >= p.limit ? p.scale : 0.0f;
    factor[4 * i + 1] = c1[i] >= p.limit ? p.scale : 0.0f;
    factor[4 * i + 2] = c2[i] >= p.limit ? p.scale : 0.0f;
    factor[4 * i + 3] = c3[i] >= p.limit ? p.scale : 0.0f;
  }
}

// Memory for one row at a time.
struct Room {
  explicit Room(int64_t width)
      : z(width), x(width), residual(width), bias(width), out(width), grad(width),
        factor(padded(width)) {}
  Scratch<float> z, x, residual, bias, out, grad, factor;
};

// z = dropout(x + bias) + residual of row t; `factor` is filled when there is dropout.
void add_up(const Params& p, int64_t t, Room& room) {
  const int64_t n = p.width;
  const float* x = floats(p.x, t * n, n, room.x.data);
  const float* residual = floats(p.residual, t * n, n, room.residual.data);
  float* z = room.z.data;
  if (p.row_bias.data != nullptr) {
    const float* bias = floats(p.row_bias, p.row_batch[t] * n, n, room.bias.data);
    for (int64_t j = 0; j < n; ++j) z[j] = x[j] + bias[j];
    x = z;
  }
  if (p.limit > 0) {
    float* factor = room.factor.data;
    for (int64_t first = 0; 4 * first < n; first += kGroups) draw(p, t, first, factor + 4 * first);
    for (int64_t j = 0; j < n; ++j) z[j] = x[j] * factor[j];
    x = z;
  }
  for (int64_t j = 0; j < n; ++j) z[j] = x[j] + residual[j];
}

}  // namespace

void forward_rows(const Params& p, int64_t begin, int64_t end) {
  const int64_t n = p.width;
  Room room(n);
  Scratch<float> gamma_room(n), beta_room(n);
  const float* gamma = floats(p.gamma, 0, n, gamma_room.data);
  const float* beta = floats(p.beta, 0, n, beta_room.data);
  const float* z = room.z.data;
  for (int64_t t = begin; t < end; ++t) {
    add_up(p, t, room);
    const float mean = sum_of(n, [&](int64_t j) { return z[j]; }) / static_cast<float>(n);
    const float variance =
        sum_of(n, [&](int64_t j) { return (z[j] - mean) * (z[j] - mean); }) / static_cast<float>(n);
    const float rstd = 1.0f / __builtin_sqrtf(variance + p.eps);
    float* y = place(p.y, t * n, room.out.data);
    for (int64_t j = 0; j < n; ++j) y[j] = (z[j] - mean) * rstd * gamma[j] + beta[j];
    put(p.y, t * n, n, y);
    p.mean[t] = mean;
    p.rstd[t] = rstd;
  }
}

void backward_blocks(const Params& p, const Gradients& g, int64_t begin, int64_t end) {
  const int64_t n = p.width;
  Room room(n);
  Scratch<float> gamma_room(n);
  const float* gamma = floats(p.gamma, 0, n, gamma_room.data);
  float* z = room.z.data;  // becomes the normalised row
  for (int64_t block = begin; block < end; ++block) {
    float* dgamma = g.partial + 2 * block * n;
    float* dbeta = dgamma + n;
    for (int64_t j = 0; j < 2 * n; ++j) dgamma[j] = 0.0f;
    int64_t run = g.order == nullptr ? 0 : g.first_run[block] - 1, sample = -1;
    const int64_t last = (block + 1) * kBlock < p.rows ? (block + 1) * kBlock : p.rows;
    for (int64_t i = block * kBlock; i < last; ++i) {
      const int64_t t = g.order == nullptr ? i : g.order[i];
      add_up(p, t, room);
      const float* dy = floats(g.grad, t * n, n, room.grad.data);
      const float mean = p.mean[t], rstd = p.rstd[t];
      for (int64_t j = 0; j < n; ++j) {
        z[j] = (z[j] - mean) * rstd;
        dgamma[j] += dy[j] * z[j];
        dbeta[j] += dy[j];
      }
      const float share = 1.0f / static_cast<float>(n);
      const float along_one = sum_of(n, [&](int64_t j) { return dy[j] * gamma[j]; }) * share;
      const float along_z = sum_of(n, [&](int64_t j) { return dy[j] * gamma[j] * z[j]; }) * share;
      float* both = g.residual.data == nullptr ? place(g.x, t * n, room.out.data)
                                               : place(g.residual, t * n, room.out.data);
      for (int64_t j = 0; j < n; ++j)
        both[j] = (dy[j] * gamma[j] - along_one - z[j] * along_z) * rstd;
      const float* dx = both;
      if (g.residual.data != nullptr) {
        put(g.residual, t * n, n, both);
        float* own = place(g.x, t * n, room.x.data);
        const float* factor = room.factor.data;
        for (int64_t j = 0; j < n; ++j) own[j] = p.limit > 0 ? both[j] * factor[j] : both[j];
        dx = own;
      }
      put(g.x, t * n, n, dx);
      if (g.order == nullptr) continue;
      const bool fresh = p.row_batch[t] != sample;
      sample = p.row_batch[t];
      run += fresh;
      float* dbias = g.partial_bias + run * n;
      for (int64_t j = 0; j < n; ++j) dbias[j] = fresh ? dx[j] : dbias[j] + dx[j];
    }
  }
}

void reduce(const Reduction& r, int64_t width) {
  Scratch<double> total(width);
  Scratch<float> out(width);
  for (int64_t j = 0; j < width; ++j) total[j] = 0.0;
  for (int64_t i = r.first; i < r.last; ++i)
    for (int64_t j = 0; j < width; ++j) total[j] += r.parts[i * r.stride + j];
  for (int64_t j = 0; j < width; ++j) out[j] = static_cast<float>(total[j]);
  put(r.out, r.at, width, out.data);
}

}  // namespace ecamp::residual_norm::ECAMP_LANE
