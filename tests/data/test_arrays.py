"""Decoded arrays do not depend on who decodes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ecamp.data.arrays import materialise
from ecamp.data.decoding import CHUNK
from ecamp.datasets.phantom import PhantomDataset


def test_the_number_of_workers_does_not_matter(tmp_path: Path) -> None:
    data = PhantomDataset(PhantomDataset.Config(pretrain=0, train=2 * CHUNK, val=5, test=5))
    alone, together = (
        materialise(data, 32, splits=["train", "val", "test"], cache=tmp_path / str(n), workers=n)
        for n in (1, 3)
    )
    assert alone.ids == together.ids
    for name in ("images", "labels", "masks", "boxes", "box_classes", "box_start"):
        assert np.array_equal(getattr(alone, name), getattr(together, name)), name
