// Checks, allocates, and hands row ranges to threads or the batch to the device. Stable ABI only.
#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "common/cast_torch.h"
#include "common/register.h"
#include "residual_norm/residual_norm.h"

namespace ecamp::residual_norm {
namespace {

using Maybe = std::optional<Tensor>;
using Three = std::tuple<Tensor, Tensor, Tensor>;
using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

const int64_t* per_row(const Maybe& t, const char* op, const char* name, int64_t rows) {
  STD_TORCH_CHECK(t.has_value(), op, ": ", name, " is required");
  check(*t, op, name, ScalarType::Long, 1);
  STD_TORCH_CHECK(t->size(0) == rows, op, ": ", name, " must have one entry per row of x");
  return t->const_data_ptr<int64_t>();
}

// Parameters common to forward and backward; the caller sets y, mean, rstd and beta.
Params prepare(const char* op, const Tensor& x, const Tensor& residual, const Tensor& gamma,
               double eps, const Maybe& row_bias, const Maybe& row_batch, double dropout,
               int64_t seed, int64_t step, const Maybe& samples, const Maybe& positions) {
  check_float(x, op, "x", 2);
  check_float(residual, op, "residual", 2);
  check_float(gamma, op, "gamma", 1);
  Params p{};
  p.rows = x.size(0);
  p.width = x.size(1);
  STD_TORCH_CHECK(residual.size(0) == p.rows && residual.size(1) == p.width, op,
                  ": residual must have the shape of x");
  STD_TORCH_CHECK(gamma.size(0) == p.width, op, ": gamma must have one entry per column of x");
  STD_TORCH_CHECK(p.width > 0, op, ": x must have at least one column");
  STD_TORCH_CHECK(dropout >= 0.0 && dropout < 1.0, op, ": dropout must lie in [0, 1)");
  p.x = in_of(x, op, "x");
  p.residual = in_of(residual, op, "residual");
  p.gamma = in_of(gamma, op, "gamma");
  if (row_bias.has_value()) {
    check_float(*row_bias, op, "row_bias", 2);
    STD_TORCH_CHECK(row_bias->size(1) == p.width, op, ": row_bias must have the width of x");
    p.row_bias = in_of(*row_bias, op, "row_bias");
    p.row_batch = per_row(row_batch, op, "row_batch", p.rows);
    p.batch = row_bias->size(0);
  }
  p.eps = static_cast<float>(eps);
  p.limit = static_cast<uint32_t>(std::min(std::nearbyint(dropout * 4294967296.0), 4294967295.0));
  p.scale = static_cast<float>(1.0 / (1.0 - dropout));
  p.step = static_cast<uint32_t>(step);
  p.seed = static_cast<uint64_t>(seed);
  if (p.limit > 0) {
    p.samples = per_row(samples, op, "samples", p.rows);
    p.positions = per_row(positions, op, "positions", p.rows);
  }
  return p;
}

void check_row_batch(const Params& p, const char* op) {
  for (int64_t t = 0; p.row_batch != nullptr && t < p.rows; ++t)
    STD_TORCH_CHECK(p.row_batch[t] >= 0 && p.row_batch[t] < p.batch, op, ": row_batch[", t, "] = ",
                    p.row_batch[t], " lies outside 0..", p.batch - 1);
}

Three outputs(Params& p, const Tensor& x, const Tensor& beta, ScalarType dtype) {
  const char* op = "residual_norm";
  check_float(beta, op, "beta", 1);
  STD_TORCH_CHECK(beta.size(0) == p.width, op, ": beta must have one entry per column of x");
  p.beta = in_of(beta, op, "beta");
  const Tensor y = new_like(x, dtype), mean = new_shape(x, {p.rows}, ScalarType::Float),
               rstd = new_shape(x, {p.rows}, ScalarType::Float);
  p.y = out_of(y, op, "the result");
  p.mean = mean.mutable_data_ptr<float>();
  p.rstd = rstd.mutable_data_ptr<float>();
  return {y, mean, rstd};
}

Three forward_cpu(Tensor x, Tensor residual, Tensor gamma, Tensor beta, double eps, Maybe row_bias,
                  Maybe row_batch, double dropout, int64_t seed, int64_t step, Maybe samples,
                  Maybe positions, ScalarType dtype) {
  const char* op = "residual_norm";
  Params p = prepare(op, x, residual, gamma, eps, row_bias, row_batch, dropout, seed, step, samples,
                     positions);
  check_row_batch(p, op);
  const Three out = outputs(p, x, beta, dtype);
  // About 16,000 values per task: below that, waking a thread costs more than it brings.
  const int64_t grain = std::max<int64_t>(1, 16384 / p.width);
  torch::stable::parallel_for(0, p.rows, grain, [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(forward_rows)(p, begin, end);
  });
  return out;
}

struct Backward {
  Params p;
  Gradients g;
  Five out;
  Tensor partial;  // keeps g.partial alive
  int64_t blocks;
};

Backward prepare_backward(const Tensor& grad, const Tensor& x, const Tensor& residual,
                          const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                          const Maybe& row_bias, const Maybe& row_batch, double dropout,
                          int64_t seed, int64_t step, const Maybe& samples, const Maybe& positions,
                          int64_t block) {
  const char* op = "residual_norm_backward";
  Params p = prepare(op, x, residual, gamma, 0.0, row_bias, row_batch, dropout, seed, step, samples,
                     positions);
  check_float(grad, op, "grad", 2);
  check(mean, op, "mean", ScalarType::Float, 1);
  check(rstd, op, "rstd", ScalarType::Float, 1);
  STD_TORCH_CHECK(grad.size(0) == p.rows && grad.size(1) == p.width && mean.size(0) == p.rows &&
                      rstd.size(0) == p.rows,
                  op, ": grad, mean and rstd must have one entry per row of x");
  p.mean = mean.mutable_data_ptr<float>();
  p.rstd = rstd.mutable_data_ptr<float>();
  const bool one = p.limit == 0 && x.scalar_type() == residual.scalar_type();
  const ScalarType bias_type = row_bias ? row_bias->scalar_type() : x.scalar_type();
  const Five out{new_like(x, x.scalar_type()),
                 new_shape(x, {one ? 0 : p.rows, p.width}, residual.scalar_type()),
                 new_like(gamma, gamma.scalar_type()), new_like(gamma, gamma.scalar_type()),
                 new_shape(x, {p.batch, p.width}, bias_type)};
  const int64_t blocks = (p.rows + block - 1) / block;
  const Tensor partial = new_shape(x, {blocks, 2, p.width}, ScalarType::Float);
  Gradients g{};
  g.grad = in_of(grad, op, "grad");
  g.x = out_of(std::get<0>(out), op, "x");
  g.residual = out_of(std::get<1>(out), op, "residual");
  if (one) g.residual.data = nullptr;
  g.partial = partial.mutable_data_ptr<float>();
  return {p, g, out, partial, blocks};
}

// Rows sorted by sample and the runs of one sample within a block.
struct Runs {
  std::vector<int64_t> order, first_run;  // see Gradients
  std::vector<int64_t> first_of_sample;   // [batch + 1]: runs of each sample
};

Runs find_runs(const Params& p) {
  Runs runs;
  std::vector<int64_t> next(p.batch + 1, 0);
  for (int64_t t = 0; t < p.rows; ++t) ++next[p.row_batch[t] + 1];
  for (int64_t b = 0; b < p.batch; ++b) next[b + 1] += next[b];
  runs.order.resize(p.rows);
  for (int64_t t = 0; t < p.rows; ++t) runs.order[next[p.row_batch[t]]++] = t;
  runs.first_of_sample.assign(p.batch + 1, 0);
  int64_t count = 0;
  for (int64_t i = 0; i < p.rows; ++i) {
    const int64_t b = p.row_batch[runs.order[i]];
    if (i % kBlock == 0) runs.first_run.push_back(count);
    if (i % kBlock == 0 || b != p.row_batch[runs.order[i - 1]]) {
      ++count;
      ++runs.first_of_sample[b + 1];
    }
  }
  for (int64_t b = 0; b < p.batch; ++b) runs.first_of_sample[b + 1] += runs.first_of_sample[b];
  return runs;
}

Five backward_cpu(Tensor grad, Tensor x, Tensor residual, Tensor gamma, Tensor mean, Tensor rstd,
                  Maybe row_bias, Maybe row_batch, double dropout, int64_t seed, int64_t step,
                  Maybe samples, Maybe positions) {
  const char* op = "residual_norm_backward";
  Backward ready = prepare_backward(grad, x, residual, gamma, mean, rstd, row_bias, row_batch,
                                    dropout, seed, step, samples, positions, kBlock);
  const Params& p = ready.p;
  Gradients& g = ready.g;
  check_row_batch(p, op);
  Runs runs;
  std::optional<Tensor> partial_bias;
  if (row_bias.has_value()) {
    runs = find_runs(p);
    partial_bias = new_shape(x, {runs.first_of_sample[p.batch], p.width}, ScalarType::Float);
    g.order = runs.order.data();
    g.first_run = runs.first_run.data();
    g.partial_bias = partial_bias->mutable_data_ptr<float>();
  }
  torch::stable::parallel_for(0, ready.blocks, 1, [&](int64_t begin, int64_t end) {
    ECAMP_LANE_CALL(backward_blocks)(p, g, begin, end);
  });
  std::vector<Reduction> sums;
  const int64_t pair = 2 * p.width;
  sums.push_back({g.partial, 0, ready.blocks, pair, out_of(std::get<2>(ready.out), op, "gamma"), 0});
  sums.push_back({g.partial + p.width, 0, ready.blocks, pair,
                  out_of(std::get<3>(ready.out), op, "beta"), 0});
  for (int64_t b = 0; b < p.batch; ++b)
    sums.push_back({g.partial_bias, runs.first_of_sample[b], runs.first_of_sample[b + 1], p.width,
                    out_of(std::get<4>(ready.out), op, "row_bias"), b * p.width});
  const int64_t count = static_cast<int64_t>(sums.size());
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ECAMP_LANE_CALL(reduce)(sums[i], p.width);
  });
  return ready.out;
}

Three forward_gpu(Tensor x, Tensor residual, Tensor gamma, Tensor beta, double eps, Maybe row_bias,
                  Maybe row_batch, double dropout, int64_t seed, int64_t step, Maybe samples,
                  Maybe positions, ScalarType dtype) {
  const OnDevice device(x);
  Params p = prepare("residual_norm", x, residual, gamma, eps, row_bias, row_batch, dropout, seed,
                     step, samples, positions);
  STD_TORCH_CHECK(p.width <= kMaxCudaWidth, "residual_norm: at most ", kMaxCudaWidth,
                  " columns on a GPU, got ", p.width);
  const Three out = outputs(p, x, beta, dtype);
  launched(forward_cuda(p, device.stream()), "residual_norm");
  return out;
}

Five backward_gpu(Tensor grad, Tensor x, Tensor residual, Tensor gamma, Tensor mean, Tensor rstd,
                  Maybe row_bias, Maybe row_batch, double dropout, int64_t seed, int64_t step,
                  Maybe samples, Maybe positions) {
  const char* op = "residual_norm_backward";
  const OnDevice device(x);
  const Backward ready = prepare_backward(grad, x, residual, gamma, mean, rstd, row_bias, row_batch,
                                          dropout, seed, step, samples, positions, kCudaBlock);
  Out dbias = out_of(std::get<4>(ready.out), op, "row_bias");
  if (!row_bias.has_value()) dbias.data = nullptr;
  launched(backward_cuda(ready.p, ready.g, out_of(std::get<2>(ready.out), op, "gamma"),
                         out_of(std::get<3>(ready.out), op, "beta"), dbias, device.stream()),
           op);
  return ready.out;
}

ECAMP_REGISTER("residual_norm", forward_cpu, forward_gpu)
ECAMP_REGISTER("residual_norm_backward", backward_cpu, backward_gpu)

}  // namespace
}  // namespace ecamp::residual_norm
