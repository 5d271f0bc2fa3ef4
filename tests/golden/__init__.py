"""Checks of a golden folder: vectors recorded from the published code, against `ecamp.published`."""

from __future__ import annotations

import os

# Sums in float32 depend on the width of MKL's vectors; one instruction set gives one verdict on every
# processor. Why: docs/decisions.md#golden-vectors-are-compared-on-one-instruction-set.
os.environ.setdefault("MKL_CBWR", "AVX2")
