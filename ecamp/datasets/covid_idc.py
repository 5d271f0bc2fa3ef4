"""COVID-19 Image Data Collection: films of COVID-19 and other pneumonias, gathered from papers and the web.

Why: docs/decisions.md#covid-19-image-data-collection-has-two-classes-and-no-notes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field

from ecamp.api.dataset import DatasetInfo, Record
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.public import SHARES, ImagePayload, PublicConfig, PublicDataset
from ecamp.errors import DataError, did_you_mean
from ecamp.io.table import read_table

COLUMNS = ("patientid", "finding", "view", "modality", "folder", "filename")
FRONTAL = ("PA", "AP", "AP Supine", "AP Erect")
CLASSES = ("no finding", "other pneumonia", "COVID-19")
# Words of `finding`: a path since late 2020 (`Pneumonia/Viral/COVID-19`), before that a word or two.
PNEUMONIA = {
    "Pneumonia", "Aspiration", "Bacterial", "Chlamydophila", "E.Coli", "Klebsiella", "Legionella",
    "Mycoplasma", "Mycoplasma Bacterial Pneumonia", "Nocardia", "Staphylococcus", "MRSA",
    "Streptococcus", "Fungal", "Aspergillosis", "Pneumocystis", "Lipoid", "Viral", "H1N1", "Herpes",
    "Influenza", "MERS-CoV", "SARS", "Varicella",
}  # fmt: skip
# Not labelled, or neither class: the cause is not said, or it is no pneumonia.
LEFT_OUT = {"todo", "Unknown", "ARDS", "Tuberculosis"}


class CovidIDCConfig(PublicConfig):
    """Which films, and what is told apart."""

    views: Literal["frontal", "all"] = Field(
        default="frontal", description="frontal: PA, AP, AP Supine, AP Erect"
    )
    classes: Literal[2, 3] = Field(
        default=2, description="3: no finding, other pneumonia, COVID-19"
    )


class CovidIDC(PublicDataset[CovidIDCConfig]):
    """Frontal films whose finding is known; clinical notes are about persons and are not read."""

    summary = "COVID-19 Image Data Collection: COVID-19 or another pneumonia"
    licence = "per image, column `license`; metadata CC BY-NC-SA 4.0"
    citation = "Cohen et al., COVID-19 Image Data Collection, arXiv 2006.11988, 2020"
    layout = """
get: git clone https://github.com/ieee8023/covid-chestxray-dataset
root holds metadata.csv (patientid, finding, view, modality, folder, filename) and images/
left out: CT, lateral films (views=all takes them), findings todo, Unknown, and those that are neither
  (Tuberculosis, ARDS alone)
label: COVID-19 (1) or another pneumonia (0), without the few films of no finding; classes=3: each of them
"""
    name = "covid-idc"
    folders = ("images",)
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the patients by hash, stratified by class.",
            flaws=(
                "films come from papers and web pages, and most of those show one disease: the source can "
                "be told instead of it",
            ),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        if self.config.classes == 3:
            return self.describe(labels=CLASSES, label_kind="multiclass")
        return self.describe(labels=CLASSES[2:])

    def _choices(self) -> tuple[str, ...]:
        views = ("all-views",) if self.config.views == "all" else ()
        return (*views, *(("3-classes",) if self.config.classes == 3 else ()))

    def _read(self) -> Iterable[Record]:
        yield from self.drawn(self._films(), SHARES)

    def _films(self) -> Iterable[Record]:
        path = self.source("metadata.csv")
        # Some notes run on in a last column without a name; all that is read stands before them.
        for row in read_table(path, COLUMNS, self.bad, unnamed=True):
            patient, finding, view, modality, folder, file = (row.values[c] for c in COLUMNS)
            if modality != "X-ray" or (self.config.views == "frontal" and view not in FRONTAL):
                continue
            where = f"{path.name} line {row.line}"
            with self.bad:
                kind = class_of(finding, where)
                if not patient or not file:
                    raise DataError(
                        f"{where}: no {'filename' if patient else 'patientid'}.",
                        "Download the table again.",
                    )
                labels = self._labels(kind)
                if labels is not None:
                    film = ImagePayload(self.place(f"{folder}/{file}", where))
                    yield Record(file, patient, "", where, labels, payload=film)

    def _labels(self, kind: str | None) -> tuple[int, ...] | None:
        if kind is None:
            return None
        if self.config.classes == 3:
            return tuple(int(kind == name) for name in CLASSES)
        return None if kind == CLASSES[0] else (int(kind == CLASSES[2]),)


def class_of(finding: str, where: str) -> str | None:
    """One of `CLASSES`, or None: not labelled, or neither.

    Raises:
        DataError: A word that the collection does not use; names the row.
    """
    words = [word.strip() for word in re.split("[/,]", finding) if word.strip()]
    known = {"COVID-19", "No Finding", *PNEUMONIA, *LEFT_OUT}
    strange = [word for word in words if word not in known]
    if strange or not words:
        shown = strange[0] if strange else ""
        raise DataError(f"{where}: '{shown}' is no finding.", did_you_mean(shown, sorted(known)))
    if "COVID-19" in words:
        return CLASSES[2]
    if "No Finding" in words:
        return CLASSES[0]
    return CLASSES[1] if PNEUMONIA.intersection(words) else None
