"""A few images represent the data set; nothing is decoded or written beyond them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ecamp.api.plugin_ref import PluginRef
from ecamp.bench.sampling import sample_dataset
from ecamp.data.arrays import materialise
from ecamp.errors import DataError, MissingError
from ecamp.plugin.host import make_plugin

DATA = PluginRef.parse("phantom?pretrain=9&train=20&val=4&test=4")


def test_it_agrees_with_the_decoded_data_set_except_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_plugin("ecamp.datasets", DATA)
    whole = materialise(data, 32, splits=["train", "val"], cache=tmp_path, workers=1)
    loaded: list[str] = []
    load = data.load

    def counted(record: Any, size: int) -> Any:
        loaded.append(record.id)
        return load(record, size)

    monkeypatch.setattr(data, "load", counted)
    seen = sample_dataset(data, data.records(), 32, splits=["train", "val"], images=3)
    assert len(loaded) == 3
    arrays = seen.arrays
    assert (arrays.key, arrays.split_hash, arrays.ids) == (whole.key, whole.split_hash, whole.ids)
    assert (arrays.images.shape, arrays.masks.shape) == (whole.images.shape, whole.masks.shape)
    assert arrays.images.base is not None  # one image, shown many times
    assert (arrays.labels == whole.labels).all()
    assert seen.count == len(whole)
    assert seen.bytes == whole.images.nbytes + whole.masks.nbytes
    few = sample_dataset(data, data.records(), 32, splits=["train", "val"], max_records=5)
    assert (len(few.arrays), few.count) == (5, len(whole))


def test_bad_images_are_handled_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_plugin("ecamp.datasets", DATA)
    load, calls = data.load, []

    def first_is_bad(record: Any, size: int) -> Any:
        calls.append(record.id)
        if len(calls) == 1:
            raise DataError("a.png: torn")
        return load(record, size)

    monkeypatch.setattr(data, "load", first_is_bad)
    with pytest.raises(DataError, match="torn"):
        sample_dataset(data, data.records(), 32, splits=["train"])
    calls.clear()
    assert (
        sample_dataset(data, data.records(), 32, splits=["train"], on_bad_image="skip").count == 20
    )
    with pytest.raises(MissingError, match="no image"):
        sample_dataset(data, data.records(), 32, splits=["train"], keep=lambda record: False)
