"""Distance between outlines: the 95th percentile of the Hausdorff distance (HD95).

Why: docs/decisions.md#hd95-in-per-cent-of-the-diagonal.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def hd95(predicted: np.ndarray, target: np.ndarray) -> float:
    """How far the outlines lie apart, leaving out the worst 5 %.

    The larger of the two 95th percentiles, outline to outline and back, as MONAI defines it.

    Args:
        predicted, target: bool (height, width).

    Returns:
        Per cent of the image's diagonal, so that sizes compare. NaN without a target. A target
        that was missed altogether counts 100: leaving it out would reward predicting nothing.
    """
    if not target.any():
        return float("nan")
    if not predicted.any():
        return 100.0
    rows, columns = (np.flatnonzero((predicted | target).any(axis)) for axis in (1, 0))
    # Outside the smallest box around both there is nothing to measure.
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    ours, theirs = outline(predicted[box]), outline(target[box])
    to_theirs = ndimage.distance_transform_edt(~theirs)[ours]
    to_ours = ndimage.distance_transform_edt(~ours)[theirs]
    worst = max(_percentile(to_theirs, 0.95), _percentile(to_ours, 0.95))
    return float(100 * worst / np.hypot(*target.shape))


def _percentile(values: np.ndarray, share: float) -> float:
    """As `np.percentile`, whose many options cost more than the distances of a small mask."""
    ordered = np.sort(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (at - low))


def outline(mask: np.ndarray) -> np.ndarray:
    """Pixels with a side outside the mask (or at the edge), bool (height, width)."""
    result: np.ndarray = mask & ~ndimage.binary_erosion(mask)
    return result
