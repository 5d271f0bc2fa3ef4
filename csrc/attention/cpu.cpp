// Pair by pair of (head, sample): a report's keys and values fit the cache, so they are converted
// to float once (the scale goes into the keys), and queries go through in tiles of kTile rows, each
// with all keys at once.
#include "attention/attention.h"

#include <cmath>
#include <limits>

#include "attention/product.h"
#include "common/dropout.h"

namespace ecamp::attention::ECAMP_LANE {
namespace {

constexpr int64_t kTile = 48;

// Dropout of one query's probabilities; the same draws as `draws` in attention.h.
Dropout dropout_of(const Params& p, int64_t query, int64_t head, int64_t sample) {
  return {static_cast<uint32_t>(query), static_cast<uint32_t>(head) << 16,
          static_cast<uint32_t>(sample), p.step, p.seed, p.limit, p.keep_scale};
}

int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Rows [start, start + count) of a head as dense float rows; zeros up to `padded` rows.
template <class T>
void pack(const View& view, int64_t start, int64_t count, int64_t padded, int64_t head,
          int64_t width, float* to) {
  const T* from = static_cast<const T*>(view.data) + start * view.row_stride +
                  head * view.head_stride;
  for (int64_t r = 0; r < count; ++r)
    for (int64_t i = 0; i < width; ++i)
      to[r * width + i] = to_float(from[r * view.row_stride + i]);
  for (int64_t i = count * width; i < padded * width; ++i) to[i] = 0.0f;
}

// Dense float rows times `factor` to rows of a head of a contiguous [rows, heads, width] tensor.
template <class T>
void unpack(const float* from, int64_t count, const Params& p, void* data, int64_t start,
            int64_t head, float factor) {
  T* to = static_cast<T*>(data) + (start * p.heads + head) * p.width;
  for (int64_t r = 0; r < count; ++r)
    for (int64_t i = 0; i < p.width; ++i)
      store(to[r * p.heads * p.width + i], from[r * p.width + i] * factor);
}

// Turns the scores of a row (`padded` of them, the last beyond `keys`) into exp(score - max);
// returns their sum, and the largest in `top`.
float exponentials(float* row, int64_t keys, int64_t padded, float& top) {
  const Vec lowest = Vec{} - std::numeric_limits<float>::infinity();
  for (int64_t j = keys; j < padded; ++j) row[j] = lowest[0];
  Vec most = lowest;
  for (int64_t j = 0; j < padded; j += kLanes) {
    const Vec x = load(row + j);
    most = x > most ? x : most;
  }
  top = most[0];
  for (int i = 1; i < kLanes; ++i) top = most[i] > top ? most[i] : top;
  Vec total{};
  for (int64_t j = 0; j < padded; j += kLanes) {
    const Vec x = exp_of(load(row + j) - top);
    save(row + j, x);
    total += x;
  }
  return sum_of(total);
}

template <class T>
void forward(const Params& p, int64_t begin, int64_t end) {
  const int64_t d = p.width, most_keys = rounded(p.max_key, 32);
  Scratch<float> query(kTile * d), key(most_keys * d), key_t(most_keys * d), value(most_keys * d);
  Scratch<float> scores(kTile * most_keys), out(kTile * d), keep(most_keys);
  for (int64_t pair = begin; pair < end; ++pair) {
    const int64_t b = pair % p.batch, head = pair / p.batch;
    const Segment s = segment_of(p, b);
    if (s.queries == 0) continue;
    const int64_t padded = rounded(s.keys, 16);
    pack<T>(p.key, s.key_start, s.keys, padded, head, d, key.data);
    pack<T>(p.value, s.key_start, s.keys, s.keys, head, d, value.data);
    transpose(key.data, padded, d, p.scale, key_t.data);
    for (int64_t at = 0; at < s.queries; at += kTile) {
      const int64_t rows = smaller(kTile, s.queries - at);
      pack<T>(p.query, s.query_start + at, rows, rows, head, d, query.data);
      product(rows, padded, d, {query.data, d, 1}, key_t.data, padded, scores.data, padded, false);
      float inverse[kTile];
      for (int64_t r = 0; r < rows; ++r) {
        float* row = scores.data + r * padded;
        float top = 0.0f;
        const float total = exponentials(row, s.keys, padded, top);
        inverse[r] = s.keys > 0 ? 1.0f / total : 0.0f;
        p.lse[(s.query_start + at + r) * p.heads + head] =
            s.keys > 0 ? top + std::log(total) : 0.0f;
        if (p.limit == 0) continue;
        draw_factors(dropout_of(p, at + r, head, p.sample_ids[b]), rounded(padded, kDrawn),
                     keep.data);
        for (int64_t j = 0; j < padded; j += kLanes) save(row + j, load(row + j) * load(&keep[j]));
      }
      product(rows, d, s.keys, {scores.data, padded, 1}, value.data, d, out.data, d, false);
      for (int64_t r = 0; r < rows; ++r)
        unpack<T>(out.data + r * d, 1, p, p.output, s.query_start + at + r, head, inverse[r]);
    }
  }
}

// Turns the scores of a row into probabilities, with dropout in `kept_probability`, and in `grad` gradients of
// the latter to gradients of the scores. The sum that softmax subtracts is taken over the keys
// themselves, not from the rounded output: exact where a single key leaves no gradient at all.
void softmax_gradient(float* row, float* grad, const float* keep, float* kept_probability,
                      int64_t keys, int64_t padded, float lse) {
  for (int64_t j = keys; j < padded; ++j) row[j] = -std::numeric_limits<float>::infinity();
  Vec total{};
  for (int64_t j = 0; j < padded; j += kLanes) {
    const Vec probability = exp_of(load(row + j) - lse), kept = load(keep + j);
    const Vec kept_grad = load(grad + j) * kept;
    save(row + j, probability);
    save(kept_probability + j, probability * kept);
    save(grad + j, kept_grad);
    total += probability * kept_grad;
  }
  const float mean = sum_of(total);
  for (int64_t j = 0; j < padded; j += kLanes)
    save(grad + j, load(row + j) * (load(grad + j) - mean));
}

template <class T>
void backward(const Params& p, int64_t begin, int64_t end) {
  const int64_t d = p.width, most_keys = rounded(p.max_key, 32);
  Scratch<float> query(kTile * d), grad(kTile * d), query_grad(kTile * d);
  Scratch<float> key(most_keys * d), key_t(most_keys * d), value(most_keys * d),
      value_t(most_keys * d), key_grad(most_keys * d), value_grad(most_keys * d);
  Scratch<float> scores(kTile * most_keys), score_grad(kTile * most_keys),
      kept(kTile * most_keys), keep(most_keys);
  for (int64_t pair = begin; pair < end; ++pair) {
    const int64_t b = pair % p.batch, head = pair / p.batch;
    const Segment s = segment_of(p, b);
    if (s.queries == 0 && s.keys == 0) continue;
    const int64_t padded = rounded(s.keys, 16);
    pack<T>(p.key, s.key_start, s.keys, padded, head, d, key.data);
    pack<T>(p.value, s.key_start, s.keys, padded, head, d, value.data);
    transpose(key.data, padded, d, p.scale, key_t.data);
    transpose(value.data, padded, d, 1.0f, value_t.data);
    for (int64_t j = 0; j < s.keys * d; ++j) key_grad[j] = value_grad[j] = 0.0f;
    for (int64_t j = 0; j < padded; ++j) keep[j] = p.keep_scale;
    for (int64_t at = 0; at < s.queries; at += kTile) {
      const int64_t rows = smaller(kTile, s.queries - at), first = s.query_start + at;
      pack<T>(p.query, first, rows, rows, head, d, query.data);
      pack<T>(p.output_grad, first, rows, rows, head, d, grad.data);
      product(rows, padded, d, {query.data, d, 1}, key_t.data, padded, scores.data, padded, false);
      product(rows, padded, d, {grad.data, d, 1}, value_t.data, padded, score_grad.data, padded,
              false);
      for (int64_t r = 0; r < rows; ++r) {
        if (p.limit > 0)
          draw_factors(dropout_of(p, at + r, head, p.sample_ids[b]), rounded(padded, kDrawn),
                       keep.data);
        softmax_gradient(scores.data + r * padded, score_grad.data + r * padded, keep.data,
                         kept.data + r * padded, s.keys, padded,
                         p.lse[(first + r) * p.heads + head]);
      }
      product(rows, d, s.keys, {score_grad.data, padded, 1}, key.data, d, query_grad.data, d,
              false);
      unpack<T>(query_grad.data, rows, p, p.query_grad, first, head, p.scale);
      product(s.keys, d, rows, {kept.data, 1, padded}, grad.data, d, value_grad.data, d, true);
      product(s.keys, d, rows, {score_grad.data, 1, padded}, query.data, d, key_grad.data, d, true);
    }
    unpack<T>(key_grad.data, s.keys, p, p.key_grad, s.key_start, head, p.scale);
    unpack<T>(value_grad.data, s.keys, p, p.value_grad, s.key_start, head, 1.0f);
  }
}

}  // namespace

void forward_pairs(const Params& p, int64_t begin, int64_t end) {
  with_type(p.type, [&](auto zero) { forward<decltype(zero)>(p, begin, end); });
}

void backward_pairs(const Params& p, int64_t begin, int64_t end) {
  with_type(p.type, [&](auto zero) { backward<decltype(zero)>(p, begin, end); });
}

}  // namespace ecamp::attention::ECAMP_LANE
