"""Row logic that CPU and GPU share, reached from Python through the headers alone."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from fractions import Fraction
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.ops.mask_tokens import CONTINUATION
from tests.ops.checks import philox_plain
from tests.ops.cmake import build

pybind11 = pytest.importorskip("pybind11")
WORD = st.integers(0, 2**32 - 1)

pytestmark = pytest.mark.slow  # compiles the headers


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    if not shutil.which("g++"):
        pytest.skip("needs a C++ compiler")
    folder = tmp_path_factory.mktemp("headers")
    build(
        folder, "-DECAMP_TESTING=ON", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DPython_EXECUTABLE={sys.executable}", target="_testing",
    )  # fmt: skip
    (path,) = folder.glob("_testing*.so")
    spec = importlib.util.spec_from_file_location("_testing", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@given(
    st.lists(st.tuples(WORD, WORD, WORD, WORD), min_size=1, max_size=5), st.integers(0, 2**64 - 1)
)
def test_philox(headers: ModuleType, counters: list, key: int) -> None:
    got = headers.philox(np.array(counters, np.uint32), key)
    want = [philox_plain(list(c), [key % 2**32, key >> 32]) for c in counters]
    assert got.tolist() == want


@given(st.sampled_from([0.0, 0.05, 0.5, 1.0]), *[st.integers(0, 300)] * 3)
def test_weights_sum_to_the_number_of_tokens(
    headers: ModuleType, template: float, templates: int, strong: int, other: int
) -> None:
    plain, of_template, of_strong, of_other = headers.balance(template, templates, strong, other)
    assert plain == 1.0
    total = templates * Fraction(of_template) + strong * Fraction(of_strong)
    total += other * Fraction(of_other)
    tokens = templates + strong + other
    assert abs(float(total) - tokens) <= 1e-5 * max(1, tokens)
    if templates and (strong or other):
        assert of_template == np.float32(template)
    # Weight that templates lose goes to entities and descriptors first.
    assert of_other == 1.0 or strong == 0


@given(st.lists(st.integers(0, 7), max_size=40))
def test_is_head(headers: ModuleType, flags: list[int]) -> None:
    want = [i == 1 or (i > 1 and not flag & CONTINUATION) for i, flag in enumerate(flags)]
    assert headers.is_head(np.array(flags, np.uint8)) == want
