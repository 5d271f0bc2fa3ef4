"""CheXpert of Stanford: 224,316 films, five findings of the competition, labels with an uncertain value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar, Literal

from pydantic import Field

from ecamp.api.dataset import DatasetInfo, Record
from ecamp.data.splits import hash_split
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.public import ImagePayload, PublicConfig, PublicDataset
from ecamp.datasets.published_lists import patient_of
from ecamp.errors import DataError
from ecamp.io.folders import resolve_below_root
from ecamp.io.labels import from_uncertain
from ecamp.io.table import read_table

FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
# Replacement of -1 per finding. `published`: as in the published lists and MGCA.
UNCERTAIN: dict[str, tuple[int | None, ...]] = {
    "published": (1, 0, 0, 1, 1),
    "zeros": (0,) * 5,
    "ones": (1,) * 5,
    "ignore": (None,) * 5,
}
RELEASE = re.compile(r"^CheXpert-v1\.0[^/]*/|^CheXpert/")  # prefix of Path in the csv files


class CheXpertConfig(PublicConfig):
    """Choice of films, and meaning of uncertain labels."""

    views: Literal["all", "frontal"] = Field(
        default="all", description="frontal: without lateral films"
    )
    uncertain: Literal["published", "zeros", "ones", "ignore"] = Field(
        default="published",
        description="replacement of the label -1; `ecamp data info chexpert` explains published",
    )


class CheXpert(PublicDataset[CheXpertConfig]):
    """Five findings per film, frontal and lateral."""

    summary = "CheXpert: 224,316 films, five findings, uncertainty policies"
    licence = "Stanford University Dataset Research Use Agreement"
    citation = "Irvin et al., CheXpert, AAAI 2019"
    layout = """
get: https://stanfordaimi.azurewebsites.net (CheXpert; the test set is part of CheXlocalize)
root contains train.csv, valid.csv, for the official test also test.csv or test_labels.csv, and the films
  train/patient00001/study1/view1_frontal.jpg ...; CheXpert-v1.0 or CheXpert-v1.0-small
uncertain labels (-1) become 1 for Atelectasis, Edema and Pleural Effusion and 0 for Cardiomegaly and
  Consolidation (uncertain=published); other options: zeros, ones, ignore. An empty label counts as 0.
splits=mgca: train_split.csv, valid_split.csv (of MGCA's script, columns as train.csv) and valid.csv, frontal
lists: of ECAMP or MRM (`train/patient57997/study1/view1_frontal.jpg 0 1 0 1 1`), -1 replaced as published
"""
    name = "chexpert"
    named_splits: ClassVar[SplitsByName] = {
        "official-test": NamedSplits(
            "test.csv of 668 films; validation is a twentieth of the patients of train.csv, by hash."
        ),
        "official-valid": NamedSplits(
            "valid.csv of 234 films is the test; validation is a twentieth of the patients of train.csv."
        ),
        "mrm": NamedSplits(
            "lists of MRM and MaCo (validation: 5,000 training films), or of ECAMP (validation: the test).",
            leaks=True,
            flaws=("ECAMP's validation is the test itself; MRM's shares patients with training",),
            lists=(
                "ECAMP/Fine-tuning/Classification/datasets/CheXpert",
                "Fine-tuning/Classification/datasets/CheXpert", "DatasetsSplits/CheXpert",
            ),
        ),
        "mgca": NamedSplits(
            "frontal films of MGCA's train_split.csv and valid_split.csv; the test is valid.csv (202 films).",
            leaks=True,
            flaws=("98 % of its validation films are in its training too: early stopping sees training data",),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=FINDINGS)

    def _version_suffix(self) -> tuple[str, ...]:
        views, uncertain = self.config.views, self.config.uncertain
        return (
            *((views,) if views != "all" else ()),
            *((f"uncertain-{uncertain}",) if uncertain != "published" else ()),
        )

    def _read(self) -> Iterable[Record]:
        all_views = self.config.views == "all" and self.splits_name != "mgca"
        for record in self._all():
            if all_views or "frontal" in record.id.rsplit("/", 1)[-1]:
                yield record

    def _all(self) -> Iterable[Record]:
        if self.from_lists:
            yield from self._listed()
            return
        if self.splits_name == "mgca":
            files = {"train": "train_split.csv", "val": "valid_split.csv", "test": "valid.csv"}
            for split, file in files.items():
                for name, labels, location in self._table(file):
                    yield self._record(name, split, labels, location)
            return
        for name, labels, location in self._table("train.csv"):
            fractions = {"train": 0.95, "val": 0.05}
            split = hash_split(patient_of(name) or name, fractions, "chexpert/official")
            yield self._record(name, split, labels, location)
        test = ("test.csv", "test_labels.csv")
        names = test if self.splits_name == "official-test" else ("valid.csv", "val_labels.csv")
        for name, labels, location in self._table(*names):
            yield self._record(name, "test", labels, location)

    def _listed(self) -> Iterable[Record]:
        listed, has_train = set(), False
        for split, row, location in self.listed_rows():
            with self.bad:
                record = self._record(RELEASE.sub("", row.image), split, row.labels or (), location)
                listed.add(record.id)
                has_train |= split == "train"
                yield record
        if not has_train:  # no repository ships the whole list: it is the rest of train.csv
            for name, labels, location in self._table("train.csv"):
                if name not in listed:
                    yield self._record(name, "train", labels, location)

    def _can_derive_train(self) -> bool:
        return self.config.percent == 100 and (self.root / self._base / "train.csv").exists()

    @cached_property
    def _base(self) -> str:
        """Folder of the release below root, if root is its parent."""
        if not any((self.root / name).exists() for name in ("train", "valid", "train.csv")):
            for folder in sorted(self.root.glob("CheXpert*")):
                if folder.is_dir():
                    return folder.name + "/"
        return ""

    def _table(self, *names: str) -> Iterable[tuple[str, tuple[int | None, ...], str]]:
        """Read film, labels and location of each row of a csv of the release."""
        path = self.source(*(self._base + name for name in names))
        policy = UNCERTAIN[self.config.uncertain]
        for row in read_table(path, ("Path", *FINDINGS), self.bad):
            location = f"{path.name} line {row.line}"
            with self.bad:
                labels = tuple(
                    from_uncertain(row.values[finding], uncertain, location)
                    for finding, uncertain in zip(FINDINGS, policy, strict=True)
                )
                yield RELEASE.sub("", row.values["Path"]), labels, location

    def _record(
        self, name: str, split: str, labels: tuple[int | None, ...], location: str
    ) -> Record:
        patient = patient_of(name)
        if patient is None or len(labels) != len(FINDINGS):
            raise DataError(
                f"{location}: '{name}' with {len(labels)} labels is not a row of CheXpert.",
                "Rows have a path like train/patient00001/study1/view1_frontal.jpg and five labels.",
            )
        path = resolve_below_root(
            self.root, name if name.startswith("/") else self._base + name, location
        )
        film = path.removeprefix(self._base)  # so that the id does not depend on root
        return Record(film, patient, split, location, labels, payload=ImagePayload(path))
