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
    """Boxes around all shapes; an image without annotation has no object."""

    summary = "Object-CXR: 9,000 films, boxes of foreign objects"
    licence = "CC BY-NC 4.0"
    citation = "JF Healthcare, Object-CXR, MIDL 2020"
    layout = """
get: https://jfhealthcare.github.io/object-CXR or academictorrents.com (object-CXR)
root contains train.csv, dev.csv (image_name, annotation) and the films in train/, dev/ or images/; for
  splits=official also test.csv and test/
an annotation is `TYPE x1 y1 x2 y2`, several are joined by `;`: 0 rectangle, 1 ellipse (both by their box),
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
            for split, row, location in self.listed_rows():
                with self.bad:
                    path = f"{'dev' if split == 'test' else 'train'}/{row.image}.jpg"
                    yield self._record(path, split, location, row.boxes or ())
        elif self.splits_name == "official":
            for part, split in (("train", "train"), ("dev", "val"), ("test", "test")):
                yield from self._part(part, split)
        else:
            yield from self.split_by_hash(self._part("train", ""), {"train": 0.9, "val": 0.1})
            yield from self._part("dev", "test")

    def _part(self, part: str, split: str) -> Iterator[Record]:
        path = self.source(f"{part}.csv")
        for row in read_table(path, ("image_name", "annotation"), self.bad):
            location = f"{path.name} line {row.line}"
            with self.bad:
                file = row.values["image_name"].rsplit("/", 1)[-1]
                boxes = parse_shapes(row.values["annotation"], location)
                yield self._record(f"{part}/{file}", split, location, boxes)

    def _record(self, path: str, split: str, location: str, boxes: tuple[Box, ...]) -> Record:
        name, film = image_name(path), ImagePayload(self.resolve_path(path, location), boxes)
        label = (int(bool(boxes)),)
        return Record(name, name, split, location, label, has_boxes=True, payload=film)

    def load(self, record: Record, size: int) -> Sample:
        image = super().load(record, size).image
        boxes = np.array(record.payload.boxes, np.float32).reshape(-1, 4)
        return Sample(image, None, boxes, np.zeros(len(boxes), np.int64))


def parse_shapes(text: str, location: str) -> tuple[Box, ...]:
    """Parse an annotation to the box around each shape.

    Raises:
        DataError: Not a known type with pairs of numbers, or an empty box; names the row.
    """
    boxes = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        try:
            shape, *words = part.split()
            numbers = [float(word) for word in words]
            if (
                shape not in ("0", "1", "2")
                or len(numbers) % 2
                or (shape != "2") != (len(numbers) == 4)
            ):
                raise ValueError("shapes 0 and 1 have four numbers, shape 2 at least three points")
            if shape == "2" and len(numbers) < 6:
                raise ValueError("a polygon has at least three points")
            xs, ys = numbers[::2], numbers[1::2]
            box = (min(xs), min(ys), max(xs), max(ys))
            if box[0] >= box[2] or box[1] >= box[3]:
                raise ValueError("the box is empty")
        except ValueError as error:
            raise DataError(
                f"{location}: '{part[:60]}' is not a shape: {error}.",
                "Write 0 x1 y1 x2 y2;2 x1 y1 x2 y2 x3 y3.",
            ) from error
        boxes.append(box)
    return tuple(boxes)
