#include "residual_norm/residual_norm.h"

#include "common/dropout.h"
#include "common/sum.h"

namespace ecamp::residual_norm::ECAMP_LANE {
namespace {

int64_t padded(int64_t width) { return (width + kDrawn - 1) / kDrawn * kDrawn; }

// Factors of dropout for the columns of row t, up to padded(width) of them.
void draw(const Params& p, int64_t t, float* factor) {
  draw_factors({static_cast<uint32_t>(p.positions[t]), 0, static_cast<uint32_t>(p.samples[t]), p.step,
                p.seed, p.limit, p.scale},
               padded(p.width), factor);
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
    draw(p, t, factor);
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
