"""Distance between outlines: the 95th percentile of the Hausdorff distance (HD95).

Why: docs/decisions.md#hd95-in-per-cent-of-the-diagonal.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def hd95(predicted: np.ndarray, target: np.ndarray) -> float:
    """Measure the distance between the outlines, leaving out the worst 5 %.

    The larger of the two 95th percentiles, outline to outline and back, as MONAI defines it.

    Args:
        predicted, target: bool (height, width).

    Returns:
        Per cent of the image's diagonal, so that sizes compare. NaN without a target. A target
        that was missed entirely counts 100: leaving it out would reward predicting nothing.
    """
    if not target.any():
        return float("nan")
    if not predicted.any():
        return 100.0
    rows, columns = (np.flatnonzero((predicted | target).any(axis)) for axis in (1, 0))
    # Outside the smallest box around both there is nothing to measure.
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    predicted_outline, target_outline = outline(predicted[box]), outline(target[box])
    to_target = ndimage.distance_transform_edt(~target_outline)[predicted_outline]
    to_predicted = ndimage.distance_transform_edt(~predicted_outline)[target_outline]
    worst = max(_percentile(to_target, 0.95), _percentile(to_predicted, 0.95))
    return float(100 * worst / np.hypot(*target.shape))


def _percentile(values: np.ndarray, fraction: float) -> float:
    """Compute `np.percentile`, whose own overhead exceeds the distances of a small mask."""
    ordered = np.sort(values)
    position = fraction * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (position - low))


def outline(mask: np.ndarray) -> np.ndarray:
    """Find the pixels with a side outside the mask (or at the edge), bool (height, width)."""
    result: np.ndarray = mask & ~ndimage.binary_erosion(mask)
    return result
