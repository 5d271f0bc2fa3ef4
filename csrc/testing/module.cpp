// The torch-free headers as a Python module, so that property tests reach them with numpy.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "common/philox.h"
#include "mask_tokens/mask_tokens.h"

namespace py = pybind11;

PYBIND11_MODULE(_testing, m) {
  m.def(
      "philox",
      [](py::array_t<uint32_t, py::array::c_style | py::array::forcecast> counters, uint64_t key) {
        if (counters.ndim() != 2 || counters.shape(1) != 4)
          throw py::value_error("philox: counters must be (n, 4)");
        py::array_t<uint32_t> out({counters.shape(0), py::ssize_t{4}});
        auto in = counters.unchecked<2>();
        auto to = out.mutable_unchecked<2>();
        for (py::ssize_t i = 0; i < in.shape(0); ++i) {
          const auto r = ecamp::philox(in(i, 0), in(i, 1), in(i, 2), in(i, 3), key);
          for (int k = 0; k < 4; ++k) to(i, k) = r.word[k];
        }
        return out;
      },
      "Philox4x32-10 of uint32 counters (n, 4) under a 64-bit key.");
  m.def(
      "balance",
      [](double template_weight, int64_t templates, int64_t strong, int64_t other) {
        const auto w = ecamp::mask_tokens::balance(template_weight, templates, strong, other);
        return py::make_tuple(w.plain, w.templates, w.strong, w.other);
      },
      "Loss weights by role from the numbers of masked tokens by role.");
  m.def(
      "is_head",
      [](py::array_t<uint8_t, py::array::c_style | py::array::forcecast> flags) {
        std::vector<bool> out(flags.size());
        for (py::ssize_t i = 0; i < flags.size(); ++i)
          out[i] = ecamp::mask_tokens::is_head(flags.data(), i);
        return out;
      },
      "Whether a word begins at each position of a row, from its tokens' flags.");
}
