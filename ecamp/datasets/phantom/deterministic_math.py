"""Arithmetic with the same bits on any machine.

Only + - * / sqrt, comparison and integers: IEEE 754 defines them exactly, while exp, sin and
long sums depend on the processor's vector width. Random numbers are Philox counters, normals are
sums of uniforms.
"""

from __future__ import annotations

import numpy as np

Field = np.ndarray  # float32 (size, size)


def generator(seed: int, *key: int) -> np.random.Generator:
    """Make a counter-based generator for (seed, key...); different keys give independent streams."""
    words = [seed & 0xFFFFFFFF, *(k & 0xFFFFFFFF for k in key)]
    packed = 0
    for word in words[:4]:
        packed = (packed << 32) | word
    return np.random.Generator(np.random.Philox(key=[packed >> 64, packed & (2**64 - 1)]))


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number in [low, high)."""
    return low + (high - low) * float(rng.random())


def chance(rng: np.random.Generator, p: float) -> bool:
    """Return True with probability p."""
    return bool(rng.random() < p)


def normal_field(rng: np.random.Generator, size: int) -> Field:
    """Draw unit-variance noise (size, size): sums of three uniforms (variance 1/12 each)."""
    u = rng.random((3, size, size), dtype=np.float32)
    result: Field = (u[0] + u[1] + u[2] - np.float32(1.5)) * np.float32(2.0)
    return result


def smoothstep(x: Field) -> Field:
    """Interpolate: 0 below 0, 1 above 1, cubic in between."""
    t = np.minimum(np.maximum(x, np.float32(0)), np.float32(1))
    result: Field = t * t * (np.float32(3) - np.float32(2) * t)
    return result


def bump(r2: Field) -> Field:
    """Evaluate a compact bell of a squared radius: 1 at 0, 0 from 1 on, smooth."""
    t = np.maximum(np.float32(1) - r2, np.float32(0))
    return t * t


def blurred_noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Draw a smooth field in about [-1, 1] with `cells` bumps across, bilinear between knots."""
    knots = rng.random((cells + 1, cells + 1), dtype=np.float32) * np.float32(2) - np.float32(1)
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
    low = np.minimum(position.astype(np.int64), cells - 1)
    t = smoothstep(position - low.astype(np.float32))
    rows = knots[low] + (knots[low + 1] - knots[low]) * t[:, None]
    result: Field = rows[:, low] + (rows[:, low + 1] - rows[:, low]) * t[None, :]
    return result
