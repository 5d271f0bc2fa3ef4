"""Renderer of films: attenuation along each ray, then the response of the detector."""

from __future__ import annotations

import numpy as np

from ecamp.datasets.phantom.anatomy import Anatomy, Pose, Thorax, make_thorax
from ecamp.datasets.phantom.deterministic_math import (
    Field,
    blurred_noise,
    bump,
    chance,
    generator,
    normal_field,
    smoothstep,
    uniform,
)
from ecamp.datasets.phantom.findings import Finding, effect

F = np.float32


def render(
    anatomy: Anatomy, pose: Pose, findings: tuple[Finding, ...], key: tuple[int, int], size: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Render one film.

    Args:
        key: Seed and index of the study; seeds noise and devices.

    Returns:
        uint8 (size, size); per finding a bool mask (size, size).
    """
    raised = tuple(
        0.018 * sum(f.severity for f in findings if f.name == "atelectasis" and f.side == side)
        for side in ("right", "left")
    )
    thorax = make_thorax(anatomy, pose, size, (raised[0], raised[1]))
    large = next((f.severity for f in findings if f.name == "cardiomegaly"), 0)
    heart, heart_mask = _heart(thorax, large)
    path = _tissue(thorax)
    path -= F(0.62) * (thorax.depth[0] + thorax.depth[1])
    path += heart
    path += _bones(thorax)
    vessels = _vessels(thorax)
    masks: list[np.ndarray] = []
    for finding in findings:
        if finding.name == "cardiomegaly":
            masks.append(heart_mask)
            continue
        change = effect(finding, thorax)
        path += change.dense
        if change.erase is not None:
            vessels = vessels * (F(1) - change.erase)
        masks.append(change.mask)
    path += vessels
    path += _devices(thorax, key)
    return _film(path, thorax, key), masks


def _tissue(thorax: Thorax) -> Field:
    """Compute trunk, shoulders, neck, breasts, and the abdomen below the diaphragm."""
    anatomy, x, y = thorax.anatomy, thorax.x, thorax.y
    half = F(0.43 + 0.06 * anatomy.habitus)
    neck = smoothstep((y - F(0.02)) / F(0.16))
    width = half * (F(0.42) + F(0.58) * neck)
    across = (x - F(0.5)) / width
    trunk = np.sqrt(np.maximum(F(1) - across * across, F(0)))
    path = trunk * F(0.86 + 0.16 * anatomy.habitus)
    # Arms at the lower corners of the shoulders.
    path += (
        bump((np.abs(x - F(0.5)) - F(0.56)) ** 2 / F(0.014))
        * F(0.35)
        * smoothstep((y - F(0.12)) / F(0.1))
    )
    if anatomy.breast:
        for sign in (-1.0, 1.0):
            dx = (x - F(0.5 + sign * 0.2)) / F(0.17)
            dy = (y - F(0.66)) / F(0.17)
            path += bump((dx * dx + dy * dy) * F(0.8)) * F(0.14 * anatomy.breast)
    belly = smoothstep((y - np.minimum(thorax.floor[0], thorax.floor[1])) / F(0.06))
    path += belly * F(0.16)
    # Stomach bubble below the left dome.
    dx, dy = (
        (x - F(0.66)) / F(0.055),
        (y - F(anatomy.lung_top + anatomy.lung_height + 0.055)) / F(0.028),
    )
    path -= bump(dx * dx + dy * dy) * F(0.3)
    return path


def _heart(thorax: Thorax, large: int) -> tuple[Field, np.ndarray]:
    """Compute heart, aortic knob and mediastinum; an enlarged heart extends towards the left wall."""
    anatomy, pose = thorax.anatomy, thorax.pose
    grow = 1.0 + (0.16 + 0.13 * large if large else 0.0) + (0.05 if pose.portable else 0.0)
    a, b = (anatomy.heart_width + 0.012) * grow, 0.150 * (1 + 0.35 * (grow - 1))
    cx = 0.5 + anatomy.heart_lean * (1 + 1.2 * (grow - 1)) + pose.turn
    cy = anatomy.lung_top + anatomy.lung_height - 0.105
    dx, dy = thorax.x - F(cx), thorax.y - F(cy)
    tilt = dx * F(0.92) + dy * F(0.30)
    rise = dy * F(0.95) - dx * F(0.22)
    r2 = (tilt / F(a)) ** 2 + (rise / F(b)) ** 2
    ball = np.sqrt(np.maximum(F(1) - r2, F(0)))
    dense = F(0.46) * smoothstep(ball * F(1.5)) * (F(0.5) + F(0.5) * ball)
    mid = (thorax.x - F(0.5 + 0.6 * pose.turn)) / F(0.056)
    band = smoothstep((F(1.3) - np.abs(mid)) / F(0.7)) * smoothstep((thorax.y - F(0.02)) / F(0.1))
    dense = np.maximum(dense, band * F(0.25))
    knob_x = (thorax.x - F(0.5 + 0.058 + pose.turn)) / F(anatomy.aorta)
    knob_y = (thorax.y - F(anatomy.lung_top + 0.17)) / F(anatomy.aorta * 1.2)
    dense = np.maximum(dense, bump((knob_x * knob_x + knob_y * knob_y) * F(0.6)) * F(0.42))
    for sign in (-1.0, 1.0):  # hila
        hx = (thorax.x - F(0.5 + sign * 0.088 + pose.turn)) / F(0.042)
        hy = (thorax.y - F(anatomy.lung_top + 0.285)) / F(0.062)
        dense = dense + bump(hx * hx + hy * hy) * F(0.16)
    return dense, r2 < 1


def _bones(thorax: Thorax) -> Field:
    """Compute posterior and anterior ribs, clavicles and vertebrae."""
    anatomy, x, y = thorax.anatomy, thorax.x, thorax.y
    total = np.zeros_like(x)
    for side in (0, 1):
        sign = F(-1.0 if side == 0 else 1.0)
        out = np.maximum(sign * (x - F(0.5)), F(0))  # distance from the midline
        cage = smoothstep((F(1.16) - np.abs(thorax.u[side])) / F(0.12)) * (out > F(0.03))
        cage = cage * smoothstep((F(0.86) - y) / F(0.1))
        # Posterior ribs arch down and outward; many at equal gaps are one periodic band.
        arch = y - F(anatomy.rib_slope) * out + F(1.15) * (out - F(0.16)) ** 2
        phase = (arch / F(anatomy.rib_gap) + F(anatomy.rib_phase)) % F(1)
        rib = bump(((phase - F(0.5)) * F(4.2)) ** 2) - F(0.55) * bump(
            ((phase - F(0.5)) * F(8)) ** 2
        )
        total += rib * cage * F(0.15)
        front = y + F(0.55) * (out - F(0.30)) * F(1.2) - F(0.2) * out
        phase = (front / F(anatomy.rib_gap * 1.3) + F(anatomy.rib_phase + 0.4)) % F(1)
        rib = bump(((phase - F(0.5)) * F(4.6)) ** 2)
        total += rib * cage * smoothstep((out - F(0.12)) / F(0.1)) * F(0.07)
        line = (
            y
            - F(anatomy.lung_top + 0.055)
            + F(0.30) * (out - F(0.16))
            - F(0.9) * (out - F(0.16)) ** 2
        )
        length = smoothstep((out - F(0.035)) / F(0.03)) * smoothstep((F(0.34) - out) / F(0.05))
        total += bump((line / F(0.017)) ** 2) * length * F(0.24)
    across = (x - F(0.5)) / F(anatomy.spine_width)
    column = smoothstep((F(1.15) - np.abs(across)) / F(0.3))
    phase = (y / F(0.062) + F(anatomy.rib_phase)) % F(1)
    disc = F(1) - F(0.35) * bump(((phase - F(0.5)) * F(5)) ** 2)
    result: Field = total + column * disc * F(0.13)
    return result


def _vessels(thorax: Thorax) -> Field:
    """Compute branching vessels that fan out from both hila and thin towards the wall."""
    rng = generator(thorax.anatomy.vessel_seed, 3)
    total = np.zeros_like(thorax.x)
    for side in (0, 1):
        sign = -1.0 if side == 0 else 1.0
        x0, y0 = 0.5 + sign * 0.095, thorax.anatomy.lung_top + 0.29
        dx = (thorax.x - F(x0)) * F(sign)
        dy = thorax.y - F(y0)
        r = np.sqrt(dx * dx + dy * dy) + F(1e-4)
        fade = smoothstep((F(0.26) - r) / F(0.22)) * thorax.lung[side]
        for _ in range(8):
            slope, bend = uniform(rng, -1.9, 1.9), uniform(rng, -2.0, 2.0)
            # Distance to a bent ray through the hilum, over a width that shrinks outward.
            norm = (1 + slope * slope) ** 0.5
            off = (dy - F(slope) * dx + F(bend) * r * r) / F(norm)
            thick = F(0.011) * (F(1) - F(2.4) * r) + F(0.0035)
            total += bump((off / np.maximum(thick, F(0.0035))) ** 2) * fade * (dx > F(-0.01))
    texture = blurred_noise(rng, thorax.size, 30) * (thorax.lung[0] + thorax.lung[1])
    result: Field = np.minimum(total, F(1.2)) * F(0.095) + texture * F(0.022)
    return result


def _devices(thorax: Thorax, key: tuple[int, int]) -> Field:
    """Compute tubes, leads and a pacemaker, which are not findings."""
    rng = generator(key[0], key[1], 11)
    total = np.zeros_like(thorax.x)
    if chance(rng, 0.22 if thorax.pose.portable else 0.06):  # line or tube down the middle
        bow, end = uniform(rng, -0.05, 0.05), uniform(rng, 0.3, 0.7)
        off = thorax.x - F(0.5) - F(bow) * (thorax.y - F(0.3))
        total += bump((off / F(0.006)) ** 2) * (thorax.y < F(end)) * F(0.22)
    if chance(rng, 0.25 if thorax.pose.portable else 0.05):  # ECG leads
        for _ in range(int(rng.integers(2, 4))):
            x0, y0, slope = (
                uniform(rng, 0.15, 0.85),
                uniform(rng, 0.2, 0.7),
                uniform(rng, -1.2, 1.2),
            )
            off = thorax.y - F(y0) - F(slope) * (thorax.x - F(x0))
            total += bump((off / F(0.006)) ** 2) * (np.abs(thorax.x - F(x0)) < F(0.16)) * F(0.12)
            r2 = ((thorax.x - F(x0)) ** 2 + (thorax.y - F(y0)) ** 2) / F(0.00022)
            total += (r2 < 1) * F(0.25)
    if chance(rng, 0.05):  # pacemaker, patient's left
        dx, dy = (thorax.x - F(0.76)) / F(0.05), (thorax.y - F(0.23)) / F(0.04)
        total += (dx * dx + dy * dy * dy * dy < 1) * F(0.6)
    return total


_MARKS = {
    0: ("11110", "10001", "11110", "10100", "10010"),
    1: ("10000", "10000", "10000", "10000", "11111"),
}


def _film(path: Field, thorax: Thorax, key: tuple[int, int]) -> np.ndarray:
    """Apply the detector: scatter, window, noise that grows with attenuation, marks."""
    pose, size = thorax.pose, thorax.size
    rng = generator(key[0], key[1], 13)
    veil = F(0.06) * (F(1) - (thorax.x - F(0.5)) ** 2 - (thorax.y - F(0.5)) ** 2)
    value = path * F(1) + veil + F(pose.shading) * (thorax.y - F(0.5))
    value = (value - F(0.62)) * F(pose.contrast) + F(0.62)
    # Photons behind `path` fall as exp(-path); its square root, by series, is the noise.
    thickness = np.maximum(path, F(0))
    sigma = F(pose.noise) * (F(1) + thickness + F(0.5) * thickness * thickness)
    # Noise per unit area is fixed: coarser pixels average it.
    value = value + normal_field(rng, size) * sigma * F(min(1.4, (size / 128.0) ** 0.5))
    value = value + F(pose.exposure)
    # Film curve: soft toe and shoulder by a rational S.
    t = (value - F(0.60)) * F(2.1)
    out = F(0.5) + F(0.5) * t / (F(0.62) + np.abs(t)) * F(1.12)
    if pose.grid:
        stripes = (np.arange(size) % 2).astype(np.float32)
        out = out + (stripes[None, :] - F(0.5)) * F(0.02)
    if pose.marker >= 0:
        _stamp(out, pose.marker, size)
    if pose.collimation:
        edge = F(pose.collimation)
        gx = (np.arange(size, dtype=np.float32) + F(0.5)) / F(size)
        keep = (gx > edge) & (gx < F(1) - edge)
        out = out * keep[None, :] * keep[:, None]
    result: np.ndarray = (np.minimum(np.maximum(out, F(0)), F(1)) * F(255) + F(0.5)).astype(
        np.uint8
    )
    return result


def _stamp(out: Field, marker: int, size: int) -> None:
    """Stamp a side letter next to the shoulder: R on the left of the image, L on its right."""
    bits = np.array([[c == "1" for c in row] for row in _MARKS[marker]])
    cell = max(1, size // 90)
    letter = np.kron(bits, np.ones((cell, cell), bool))
    h, w = letter.shape
    top = int(size * 0.06)
    left = int(size * 0.06) if marker == 0 else size - int(size * 0.06) - w
    area = out[top : top + h, left : left + w]
    area[letter] = F(0.97)
