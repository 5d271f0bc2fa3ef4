"""ChestX-ray14 of the NIH: 112,120 frontal films of 30,805 patients, 14 findings mined from reports."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar

from ecamp.api.dataset import DatasetInfo, Record
from ecamp.data.splits import hash_split
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.public import ImagePayload, PublicDataset
from ecamp.datasets.published_lists import patient_of, read_list
from ecamp.errors import DataError
from ecamp.io.labels import from_findings
from ecamp.io.table import read_table

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
IMAGE, LABELS = "Image Index", "Finding Labels"
NOT_OFFICIAL = (
    "not the official split: 17,920 of the 25,596 official test images are in its training list"
)


class ChestXray14(PublicDataset):
    """14 findings per film; the first eight digits of a name are the patient."""

    summary = "NIH ChestX-ray14: 112,120 films, 14 findings"
    licence = "free to use, to be attributed to the NIH Clinical Center"
    citation = "Wang et al., ChestX-ray8, CVPR 2017"
    layout = """
get: https://nihcc.app.box.com/v/ChestXray-NIHCC, or Kaggle nih-chest-xrays/data
root contains Data_Entry_2017*.csv, train_val_list.txt, test_list.txt and the images in
  images_001..012/images/ (as unpacked), images_001..012/, all_classes/ or images/
lists: of ECAMP or MRM (`images_006/00011997_000.png 0 0 ...`, the folder may be missing), or of
  BenchX (ids only, with Data_Entry_2017*.csv in root)
"""
    name = "chestxray14"
    folders = ("images_*", "all_classes", "images")
    named_splits: ClassVar[SplitsByName] = {
        "official": NamedSplits(
            "the two lists of the NIH; validation is an eighth of the patients of train_val_list.txt, by hash.",
            (75_920, 10_604, 25_596),
            "71fa708542d7af68",
        ),
        "mrm": NamedSplits(
            "lists of MRM, MaCo, ECAMP and BenchX (the split of a CheXNet reimplementation).",
            (78_468, 11_219, 22_433),
            "d4c317f98799eb80",
            flaws=(NOT_OFFICIAL,),
            lists=(
                "ECAMP/Fine-tuning/Classification/datasets/ChestX-ray14",
                "Fine-tuning/Classification/datasets/ChestX-ray14",
                "DatasetsSplits/NIH_ChestX-ray", "preprocess/datasets/NIH_Chest_Xray", ".",
            ),
        ),
        "official-lists": NamedSplits(
            "lists Xray14_{train,val,test}_official.txt, used by KAD, G2D and Ark.",
            (75_312, 11_212, 25_596),
            "3d90893022b13a1d",
            lists=("dataset",),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=FINDINGS)

    def _read(self) -> Iterable[Record]:
        if not self.from_lists:
            yield from self._official()
            return
        listed = set()
        has_train = False
        for split, row, location in self.listed_rows():
            with self.bad:
                name = row.image.rsplit("/", 1)[-1]
                listed.add(name)
                has_train |= split == "train"
                labels = row.labels if row.labels else self._labels(name, location)
                yield self._record(name, split, labels, location, row.image)
        if not has_train:  # ECAMP does not ship the whole training list: it is the rest
            for name, (labels, location) in self._table.items():
                if name not in listed:
                    yield self._record(name, "train", labels, location)

    def _official(self) -> Iterable[Record]:
        for pattern, test in (("train_val_list.txt", False), ("test_list.txt", True)):
            path = self.source(pattern)
            for row in read_list(path, "test" if test else "train", bad=self.bad).rows:
                location = f"{path.name} line {row.line}"
                with self.bad:
                    labels = self._labels(row.image, location)
                    patient = patient_of(row.image) or row.image
                    fractions = {"train": 0.875, "val": 0.125}
                    split = (
                        "test" if test else hash_split(patient, fractions, "chestxray14/official")
                    )
                    yield self._record(row.image, split, labels, location)

    def _record(
        self, name: str, split: str, labels: tuple[int | None, ...], location: str, path: str = ""
    ) -> Record:
        if len(labels) != len(FINDINGS):
            raise DataError(
                f"{location}: {len(labels)} labels, expected {len(FINDINGS)}.",
                "Use the list of ChestX-ray14 as published.",
            )
        patient = patient_of(name)
        if patient is None:
            raise DataError(
                f"{location}: '{name}' is not an image name of ChestX-ray14.",
                "Names are like 00000001_000.png.",
            )
        film = ImagePayload(self.resolve_path(path or name, location))
        return Record(name, patient, split, location, labels, payload=film)

    @cached_property
    def _table(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Image name -> (labels, row)."""
        path = self.source("Data_Entry_2017*.csv")
        table = {}
        for row in read_table(path, (IMAGE, LABELS), self.bad):
            location = f"{path.name} line {row.line}"
            with self.bad:
                name = row.values[IMAGE]
                if name in table:
                    raise DataError(f"{location}: duplicate image '{name}'.", "Remove one row.")
                table[name] = from_findings(row.values[LABELS], FINDINGS, location), location
        return table

    def _labels(self, name: str, location: str) -> tuple[int, ...]:
        if name not in self._table:
            raise DataError(
                f"{location}: '{name}' is not in Data_Entry_2017*.csv.",
                "Download the table again, or correct the name.",
            )
        return self._table[name][0]

    def _can_derive_train(self) -> bool:
        return self.config.percent == 100 and any(self.root.glob("Data_Entry_2017*.csv"))
