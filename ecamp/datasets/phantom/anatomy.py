"""Anatomy of a thorax in unit coordinates: x to the right of the image, y down, both 0..1.

The patient's right side is on the left of the image, as on every frontal film.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ecamp.datasets.phantom.deterministic_math import Field, chance, smoothstep, uniform

SIDES = ("right", "left")  # the patient's sides; index 0 is at small x


@dataclass(frozen=True)
class Anatomy:
    """Shape of one patient; shared by all studies of the patient.

    Lengths are in units of the image side.
    """

    habitus: float  # soft tissue, 0 slim .. 1 heavy
    lung_half_width: float
    lung_top: float
    lung_height: float
    heart_width: float  # half width
    heart_lean: float
    aorta: float  # size of the knob
    rib_slope: float
    rib_gap: float
    spine_width: float
    dome: float  # height of the diaphragm's arch
    breast: float  # 0 none
    rib_phase: float
    vessel_seed: int


@dataclass(frozen=True)
class Pose:
    """Acquisition parameters of one study."""

    centre: float  # x of the spine
    lift: float  # y shift
    scale: float
    turn: float  # rotation about the long axis: moves mediastinum against spine
    inspiration: float  # 1 deep
    exposure: float
    contrast: float
    noise: float
    shading: float
    grid: bool
    portable: bool  # AP
    marker: int  # -1 none, 0 right, 1 left
    collimation: float


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw the anatomy of a patient."""
    return Anatomy(
        habitus=uniform(rng, 0, 1),
        lung_half_width=uniform(rng, 0.148, 0.182),
        lung_top=uniform(rng, 0.10, 0.15),
        lung_height=uniform(rng, 0.60, 0.68),
        heart_width=uniform(rng, 0.105, 0.135),
        heart_lean=uniform(rng, 0.025, 0.05),
        aorta=uniform(rng, 0.030, 0.048),
        rib_slope=uniform(rng, 0.10, 0.22),
        rib_gap=uniform(rng, 0.068, 0.080),
        spine_width=uniform(rng, 0.036, 0.046),
        dome=uniform(rng, 0.06, 0.10),
        breast=uniform(rng, 0.3, 1.0) if chance(rng, 0.4) else 0.0,
        rib_phase=uniform(rng, 0, 1),
        vessel_seed=int(rng.integers(0, 2**31)),
    )


def draw_pose(rng: np.random.Generator) -> Pose:
    """Draw the acquisition parameters of a study."""
    portable = chance(rng, 0.35)
    return Pose(
        centre=0.5 + uniform(rng, -0.025, 0.025),
        lift=uniform(rng, -0.025, 0.025),
        scale=uniform(rng, 0.93, 1.06),
        turn=uniform(rng, -0.018, 0.018),
        inspiration=uniform(rng, 0.80, 0.98) if portable else uniform(rng, 0.90, 1.05),
        exposure=uniform(rng, -0.10, 0.10),
        contrast=uniform(rng, 0.85, 1.15),
        noise=uniform(rng, 0.008, 0.022),
        shading=uniform(rng, -0.08, 0.08),
        grid=chance(rng, 0.08),
        portable=portable,
        marker=int(rng.integers(0, 2)) if chance(rng, 0.7) else -1,
        collimation=uniform(rng, 0.0, 0.03) if chance(rng, 0.4) else 0.0,
    )


@lru_cache(maxsize=8)
def pixel_grid(size: int) -> tuple[Field, Field]:
    """Compute pixel centres in unit coordinates: x (1, size), y (size, 1)."""
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return centres[None, :], centres[:, None]


@dataclass(frozen=True)
class Thorax:
    """Fields of the posed patient on a pixel grid, shared by anatomy and findings.

    Attributes:
        x, y: Patient coordinates of the pixels (pose undone), float32 (size, size).
        u: Per side, lateral position inside the lung, -1 medial .. 1 lateral edge.
        v: Per side, height inside the lung, 0 apex .. 1 base.
        lung: Per side, 0..1 membership.
        depth: Per side, relative thickness of the lung along the ray.
        floor: Per side, y of the diaphragm at each x.
    """

    anatomy: Anatomy
    pose: Pose
    size: int
    x: Field
    y: Field
    u: tuple[Field, Field]
    v: tuple[Field, Field]
    lung: tuple[Field, Field]
    depth: tuple[Field, Field]
    floor: tuple[Field, Field]


def lung_middle(anatomy: Anatomy, side: int) -> float:
    """Return x of a lung's long axis."""
    sign = -1.0 if side == 0 else 1.0
    return 0.5 + sign * (anatomy.lung_half_width + 0.058)


def make_thorax(
    anatomy: Anatomy, pose: Pose, size: int, raised: tuple[float, float] = (0.0, 0.0)
) -> Thorax:
    """Compute the fields of the lungs on a pixel grid.

    Args:
        raised: Per side, shift of the diaphragm by volume loss.
    """
    gx, gy = pixel_grid(size)
    one = np.float32(1)
    x = (gx - np.float32(pose.centre)) / np.float32(pose.scale) + np.float32(0.5) + gy * 0
    y = (gy - np.float32(0.5 + pose.lift)) / np.float32(pose.scale) + np.float32(0.5) + gx * 0
    u, v, lung, depth, floors = [], [], [], [], []
    for side in (0, 1):
        sign = np.float32(-1.0 if side == 0 else 1.0)
        top = np.float32(anatomy.lung_top)
        height = anatomy.lung_height * (0.88 + 0.12 * pose.inspiration)
        base = np.float32(anatomy.lung_top + height + (0.0 if side == 0 else 0.02) - raised[side])
        middle = np.float32(lung_middle(anatomy, side))
        t = (y - top) / (base - top)
        # Narrow apex, widest low: the rib cage's outline.
        widen = smoothstep(t / np.float32(0.55))
        half = np.float32(anatomy.lung_half_width) * (np.float32(0.45) + np.float32(0.55) * widen)
        axis = middle - sign * np.float32(0.035) * (one - widen)
        lateral = sign * (x - axis) / half
        arch = one - lateral * lateral * np.float32(0.8)
        floor = (
            base + np.float32(0.045) - np.float32(anatomy.dome) * np.maximum(arch, np.float32(0))
        )
        soft = np.float32(0.02)
        inside = smoothstep(
            (
                one
                - np.sqrt(
                    lateral * lateral
                    + np.maximum(-t * np.float32(6) + np.float32(0.9), np.float32(0)) ** 2
                )
            )
            / np.float32(0.10)
        )
        member = inside * smoothstep((floor - y) / soft + np.float32(0.5))
        u.append(lateral)
        v.append(t)
        lung.append(member)
        bulge = np.sqrt(np.maximum(one - lateral * lateral * np.float32(0.75), np.float32(0)))
        depth.append(member * bulge)
        floors.append(floor)
    return Thorax(
        anatomy, pose, size, x, y, (u[0], u[1]), (v[0], v[1]), (lung[0], lung[1]),
        (depth[0], depth[1]), (floors[0], floors[1]),
    )  # fmt: skip
