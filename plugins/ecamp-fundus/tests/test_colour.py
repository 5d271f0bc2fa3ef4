"""Mean and standard deviation of retinal photographs, measured again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from ecamp_fundus.base import MEAN, STD

from ecamp.api import Sample, letterbox, read_image


def test_mean_and_std_are_those_of_photographs() -> None:
    root = Path(os.environ.get("ECAMP_SHARED", Path(__file__).parents[4] / "shared"))
    files = sorted((root / "data" / "fundus" / "images").glob("*.jpg"))
    if not files:
        pytest.skip("the development data (ECAMP_SHARED, or ../shared) is not on this machine")
    images = [letterbox(Sample(read_image(path, "rgb")), 224).image for path in files]
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    assert len(files) == 34
    assert np.allclose(pixels.mean(0), MEAN, atol=5e-4)
    assert np.allclose(pixels.std(0), STD, atol=5e-4)
