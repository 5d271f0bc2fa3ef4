"""Object-CXR: foreign objects on chest films as rectangles, ellipses and polygons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from ecamp.api.dataset import DatasetInfo, Record, Sample
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.public import NO_PATIENTS, ImagePayload, PublicDataset
from ecamp.errors import DataError
from ecamp.io.boxes import Box
from ecamp.io.folders import image_name
from ecamp.io.table import read_table


class ObjectCXR(PublicDataset):
    """Boxes around all shapes; an image without annotation holds no object."""

    summary = "Object-CXR: 9,000 films, boxes of foreign objects"
    licence = "CC BY-NC 4.0"
    citation = "JF Healthcare, Object-CXR, MIDL 2020"
    layout = """
get: https://jfhealthcare.github.io/object-CXR or academictorrents.com (object-CXR)
root holds train.csv, dev.csv (image_name, annotation) and the films in train/, dev/ or images/; for
  protocol official also test.csv and test/
an annotation is `TYPE x1 y1 x2 y2`, several joined by `;`: 0 rectangle, 1 ellipse (both by their box),
  2 polygon (x1 y1 x2 y2 ... xn yn)
lists: of LoVT (csv `ID,boxes,classes`)
"""
    name = "object-cxr"
    folders = ("train", "dev", "test", "images")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "dev.csv is the test; validation is a tenth of the images of train.csv with and of those without "
            "an object, by hash.",
            (7_200, 800, 1_000), "4241137f4c197994", flaws=(NO_PATIENTS,),
        ),
        "official": NamedSplits(
            "train.csv, dev.csv, test.csv.", (8_000, 1_000, 1_000), "feb8460302c7277c",
            flaws=(NO_PATIENTS,),
        ),
        "lovt": NamedSplits(
            "LoVT's lists: dev.csv is the test, a fifth of train.csv validation.", (6_400, 1_600, 1_000),
            "0f7f1b25215a925f", flaws=(NO_PATIENTS,), lists=("datasets/object-CXR",),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=("foreign object",), box_classes=("foreign object",))

    def _read(self) -> Iterable[Record]:
        if self.from_lists:
            for split, row, where in self.published():
                with self.bad:
                    path = f"{'dev' if split == 'test' else 'train'}/{row.image}.jpg"
                    yield self._record(path, split, where, row.boxes or ())
        elif self.splits_name == "official":
            for part, split in (("train", "train"), ("dev", "val"), ("test", "test")):
                yield from self._part(part, split)
        else:
            yield from self.drawn(self._part("train", ""), {"train": 0.9, "val": 0.1})
            yield from self._part("dev", "test")

    def _part(self, part: str, split: str) -> Iterator[Record]:
        path = self.source(f"{part}.csv")
        for row in read_table(path, ("image_name", "annotation"), self.bad):
            where = f"{path.name} line {row.line}"
            with self.bad:
                file = row.values["image_name"].rsplit("/", 1)[-1]
                boxes = shapes(row.values["annotation"], where)
                yield self._record(f"{part}/{file}", split, where, boxes)

    def _record(self, path: str, split: str, where: str, boxes: tuple[Box, ...]) -> Record:
        name, film = image_name(path), ImagePayload(self.place(path, where), boxes)
        label = (int(bool(boxes)),)
        return Record(name, name, split, where, label, has_boxes=True, payload=film)

    def load(self, record: Record, size: int) -> Sample:
        image = super().load(record, size).image
        boxes = np.array(record.payload.boxes, np.float32).reshape(-1, 4)
        return Sample(image, None, boxes, np.zeros(len(boxes), np.int64))


def shapes(text: str, where: str) -> tuple[Box, ...]:
    """The box around each shape of an annotation.

    Raises:
        DataError: Not a known type with pairs of numbers, or an empty box; names the row.
    """
    boxes = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        try:
            kind, *words = part.split()
            numbers = [float(word) for word in words]
            if (
                kind not in ("0", "1", "2")
                or len(numbers) % 2
                or (kind != "2") != (len(numbers) == 4)
            ):
                raise ValueError("0 and 1 take four numbers, 2 takes at least three points")
            if kind == "2" and len(numbers) < 6:
                raise ValueError("a polygon has at least three points")
            xs, ys = numbers[::2], numbers[1::2]
            box = (min(xs), min(ys), max(xs), max(ys))
            if box[0] >= box[2] or box[1] >= box[3]:
                raise ValueError("it is empty")
        except ValueError as error:
            raise DataError(
                f"{where}: no shape '{part[:60]}': {error}.", "0 x1 y1 x2 y2;2 x1 y1 x2 y2 x3 y3"
            ) from error
        boxes.append(box)
    return tuple(boxes)
