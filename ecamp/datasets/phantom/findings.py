"""Findings: frequency, position, course over time, and effect on the attenuation along rays."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ecamp.datasets.phantom.anatomy import Thorax
from ecamp.datasets.phantom.deterministic_math import (
    Field,
    blurred_noise,
    bump,
    chance,
    generator,
    smoothstep,
    uniform,
)

FINDINGS = (
    "nodule",
    "mass",
    "consolidation",
    "effusion",
    "pneumothorax",
    "cardiomegaly",
    "atelectasis",
    "oedema",
)
# Probability of each in an abnormal patient; oedema also follows an enlarged heart.
WEIGHTS = {
    "nodule": 0.20,
    "mass": 0.15,
    "consolidation": 0.22,
    "effusion": 0.22,
    "pneumothorax": 0.16,
    "cardiomegaly": 0.20,
    "atelectasis": 0.18,
    "oedema": 0.05,
}
NORMAL = 0.36  # fraction of patients without any finding


@dataclass(frozen=True)
class Finding:
    """One instance of a finding.

    Attributes:
        name: One of `FINDINGS`.
        side: `right`, `left` (the patient's), or `midline`.
        zone: `upper`, `mid`, `lower`, or `none` if zones do not apply.
        severity: 1 mild, 2 moderate, 3 severe.
        stated: Whether the report mentions it (subtle ones are sometimes missed).
        key: Seed of the shape, so that follow-ups share it.
    """

    name: str
    side: str
    zone: str
    severity: int
    stated: bool
    key: int


def draw_findings(rng: np.random.Generator) -> tuple[Finding, ...]:
    """Draw the findings of a patient's first study."""
    if chance(rng, NORMAL):
        return ()
    names = [name for name in FINDINGS if chance(rng, WEIGHTS[name])]
    if "cardiomegaly" in names and "oedema" not in names and chance(rng, 0.45):
        names.append("oedema")
    if "oedema" in names and "effusion" not in names and chance(rng, 0.3):
        names.append("effusion")
    if not names:
        names = [FINDINGS[int(rng.integers(0, len(FINDINGS)))]]
    return tuple(f for name in names[:4] for f in _instances(rng, name))


def _instances(rng: np.random.Generator, name: str) -> list[Finding]:
    severity = 1 + int(rng.integers(0, 3))
    side = ("right", "left")[int(rng.integers(0, 2))]
    zone = ("upper", "mid", "lower")[int(rng.integers(0, 3))]
    if name == "effusion":
        zone = "lower"
    elif name == "pneumothorax":
        zone = "upper"
    elif name == "atelectasis":
        zone = ("mid", "lower")[int(rng.integers(0, 2))]
    stated = not (severity == 1 and chance(rng, 0.08))
    key = int(rng.integers(0, 2**31))
    if name == "cardiomegaly":
        return [Finding(name, "midline", "none", severity, stated, key)]
    first = Finding(name, side, zone, severity, stated, key)
    other = "left" if side == "right" else "right"
    twice = name == "oedema" or (name == "effusion" and chance(rng, 0.3))
    return [first, replace(first, side=other, key=key ^ 1)] if twice else [first]


def follow_up(rng: np.random.Generator, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Change a patient's findings between studies: most stay; some grow, shrink, go or appear."""
    kept = []
    fate: dict[str, tuple[bool, int]] = {}
    for finding in findings:
        stays, step = fate.setdefault(finding.name, (chance(rng, 0.8), int(rng.integers(-1, 2))))
        if stays:
            severity = min(3, max(1, finding.severity + step))
            kept.append(replace(finding, severity=severity, stated=True))
    if chance(rng, 0.15):
        new = draw_findings(rng)
        kept += [f for f in new if f.name not in {k.name for k in kept}]
    return tuple(kept)


@dataclass(frozen=True)
class Effect:
    """Effect of a finding on the film.

    Attributes:
        dense: float32 (size, size), attenuation to add; negative values remove some.
        erase: float32 (size, size), 1 where lung vessels vanish (pneumothorax); or None.
        mask: bool (size, size), pixels of the finding.
    """

    dense: Field
    erase: Field | None
    mask: np.ndarray


def effect(finding: Finding, thorax: Thorax) -> Effect:
    """Compute the effect of one finding on the pixel grid."""
    rng = generator(finding.key, 7)
    return _EFFECTS[finding.name](finding, thorax, rng)


def _position(finding: Finding, rng: np.random.Generator) -> tuple[float, float]:
    """Draw lateral position and height inside the lung for the zone."""
    height = {"upper": (0.20, 0.36), "mid": (0.42, 0.60), "lower": (0.66, 0.84), "none": (0.3, 0.7)}
    low, high = height[finding.zone]
    return uniform(rng, -0.35, 0.5), uniform(rng, low, high)


def _side(finding: Finding) -> int:
    return 0 if finding.side == "right" else 1


def _lung_point(thorax: Thorax, side: int, u: float, v: float) -> tuple[float, float]:
    """Convert a point in lung coordinates to patient coordinates, by the nearest pixel."""
    distance = (thorax.u[side] - np.float32(u)) ** 2 + (thorax.v[side] - np.float32(v)) ** 2
    row, column = divmod(int(distance.argmin()), thorax.size)
    return float(thorax.x[row, column]), float(thorax.y[row, column])


def _round(finding: Finding, thorax: Thorax, rng: np.random.Generator) -> Effect:
    """Render a nodule (small, smooth) or a mass (large, lobulated)."""
    u, v = _position(finding, rng)
    cx, cy = _lung_point(thorax, _side(finding), u, v)
    mass = finding.name == "mass"
    radius = (0.062 if mass else 0.030) * (0.85 + 0.18 * finding.severity)
    dx, dy = (thorax.x - np.float32(cx)), (thorax.y - np.float32(cy))
    r2 = (dx * dx + dy * dy) / np.float32(radius * radius)
    if mass:
        r2 = r2 * (np.float32(1) + np.float32(0.35) * blurred_noise(rng, thorax.size, 9))
    shape = np.sqrt(np.maximum(np.float32(1) - r2, np.float32(0)))
    dense = shape * np.float32((0.26 if mass else 0.24) + 0.06 * finding.severity)
    return Effect(dense, None, r2 < 1)


def _consolidation(finding: Finding, thorax: Thorax, rng: np.random.Generator) -> Effect:
    u, v = _position(finding, rng)
    side = _side(finding)
    cx, cy = _lung_point(thorax, side, u * 0.6, v)
    a = 0.085 + 0.022 * finding.severity
    b = 0.065 + 0.020 * finding.severity
    dx, dy = (
        (thorax.x - np.float32(cx)) / np.float32(a),
        (thorax.y - np.float32(cy)) / np.float32(b),
    )
    noise = blurred_noise(rng, thorax.size, 12)
    r2 = (dx * dx + dy * dy) * (np.float32(1) + np.float32(0.5) * noise)
    cloud = smoothstep((np.float32(1.15) - r2) * np.float32(1.6)) * thorax.lung[side]
    # Air bronchograms: darker streaks inside the dense lung.
    streaks = np.float32(1) - np.float32(0.4) * bump(
        (blurred_noise(rng, thorax.size, 22) * np.float32(4)) ** 2
    )
    dense = cloud * streaks * np.float32(0.17 + 0.055 * finding.severity)
    return Effect(dense, None, cloud > np.float32(0.5))


def _effusion(finding: Finding, thorax: Thorax, rng: np.random.Generator) -> Effect:
    side = _side(finding)
    level = 0.04 + 0.075 * finding.severity + uniform(rng, -0.01, 0.015)
    # The meniscus climbs along the chest wall.
    lateral = np.maximum(thorax.u[side], np.float32(-1))
    climb = np.float32(level) * (
        np.float32(0.60)
        + np.float32(0.65) * smoothstep((lateral + np.float32(0.4)) / np.float32(1.4))
    )
    base = np.float32(thorax.anatomy.lung_top + thorax.anatomy.lung_height + 0.03)
    fluid = smoothstep((thorax.y - (base - climb)) / np.float32(0.03) + np.float32(0.5))
    inside = smoothstep((np.float32(1.08) - np.sqrt(lateral * lateral)) / np.float32(0.08))
    inside = inside * (thorax.u[side] > -1) * (thorax.y < base + np.float32(0.03))
    shape = fluid * inside
    dense = shape * np.float32(0.46) * (np.float32(0.15) + np.float32(0.85) * thorax.depth[side])
    return Effect(dense, None, shape > np.float32(0.5))


def _pneumothorax(finding: Finding, thorax: Thorax, rng: np.random.Generator) -> Effect:
    side = _side(finding)
    width = 0.13 + 0.11 * finding.severity
    u, v = thorax.u[side], thorax.v[side]
    reach = np.float32(0.45 + 0.15 * finding.severity)
    # The collapsed lung's edge: pulled in from the wall, most at the apex.
    edge = np.float32(1.0) - np.float32(width) * smoothstep(
        (reach + np.float32(0.25) - v) / np.float32(0.5)
    )
    apex = smoothstep(
        (np.float32(0.03 + 0.05 * finding.severity) - v) / np.float32(0.06) + np.float32(0.5)
    )
    air = np.maximum(smoothstep((u - edge) / np.float32(0.05) + np.float32(0.5)), apex)
    air = air * thorax.lung[side] * (v < reach + np.float32(0.2))
    line = (
        bump(((u - edge) / np.float32(0.09)) ** 2)
        * thorax.lung[side]
        * (v < reach)
        * (v > np.float32(0.06))
    )
    dense = line * np.float32(0.16) - air * np.float32(0.11 + 0.03 * finding.severity)
    return Effect(dense, air, air > np.float32(0.5))


def _atelectasis(finding: Finding, thorax: Thorax, rng: np.random.Generator) -> Effect:
    u, v = _position(finding, rng)
    side = _side(finding)
    cx, cy = _lung_point(thorax, side, u * 0.5, v)
    length, thick = 0.10 + 0.02 * finding.severity, 0.014 + 0.006 * finding.severity
    slope = uniform(rng, -0.45, 0.45)
    dx, dy = thorax.x - np.float32(cx), thorax.y - np.float32(cy)
    along = dx * np.float32(1 / length)
    across = (dy - np.float32(slope) * dx) * np.float32(1 / thick)
    band = bump(along * along) * smoothstep(
        (np.float32(1.3) - np.sqrt(across * across)) * np.float32(1.5)
    )
    band = band * thorax.lung[side]
    dense = band * np.float32(0.22 + 0.06 * finding.severity)
    return Effect(dense, None, band > np.float32(0.3))


def _oedema(finding: Finding, thorax: Thorax, rng: np.random.Generator) -> Effect:
    side = _side(finding)
    u, v = thorax.u[side] + np.float32(0.75), thorax.v[side] - np.float32(0.55)
    r2 = (u * u) / np.float32(0.95) + (v * v) / np.float32(0.16)
    haze = bump(r2 * np.float32(0.72)) * thorax.lung[side]
    grain = np.float32(1) + np.float32(0.35) * blurred_noise(rng, thorax.size, 28)
    # Kerley lines: short horizontal streaks at the lateral base.
    rows = (thorax.v[side] * np.float32(34)) % np.float32(1)
    kerley = bump(((rows - np.float32(0.5)) * np.float32(4)) ** 2) * smoothstep(
        (thorax.u[side] - np.float32(0.62)) * np.float32(8)
    )
    kerley = kerley * (thorax.v[side] > np.float32(0.68)) * thorax.lung[side]
    dense = haze * grain * np.float32(0.13 + 0.055 * finding.severity) + kerley * np.float32(0.07)
    return Effect(dense, None, haze > np.float32(0.3))


_EFFECTS = {
    "nodule": _round,
    "mass": _round,
    "consolidation": _consolidation,
    "effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "atelectasis": _atelectasis,
    "oedema": _oedema,
}
