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
from ecamp.datasets.public import DEFAULT_FRACTIONS, ImagePayload, PublicConfig, PublicDataset
from ecamp.errors import DataError, did_you_mean
from ecamp.io.table import read_table

COLUMNS = ("patientid", "finding", "view", "modality", "folder", "filename")
FRONTAL = ("PA", "AP", "AP Supine", "AP Erect")
CLASSES = ("no finding", "other pneumonia", "COVID-19")
# Words of `finding`: since late 2020 a path (`Pneumonia/Viral/COVID-19`), before that one or two words.
PNEUMONIA = {
    "Pneumonia", "Aspiration", "Bacterial", "Chlamydophila", "E.Coli", "Klebsiella", "Legionella",
    "Mycoplasma", "Mycoplasma Bacterial Pneumonia", "Nocardia", "Staphylococcus", "MRSA",
    "Streptococcus", "Fungal", "Aspergillosis", "Pneumocystis", "Lipoid", "Viral", "H1N1", "Herpes",
    "Influenza", "MERS-CoV", "SARS", "Varicella",
}  # fmt: skip
# Not labelled: the cause is not given, or it is not a pneumonia.
SKIPPED = {"todo", "Unknown", "ARDS", "Tuberculosis"}


class CovidIDCConfig(PublicConfig):
    """Choice of films and classes."""

    views: Literal["frontal", "all"] = Field(
        default="frontal", description="frontal: PA, AP, AP Supine, AP Erect"
    )
    classes: Literal[2, 3] = Field(
        default=2, description="3: no finding, other pneumonia, COVID-19"
    )


class CovidIDC(PublicDataset[CovidIDCConfig]):
    """Frontal films with a known finding; clinical notes are about persons and are not read."""

    summary = "COVID-19 Image Data Collection: COVID-19 or another pneumonia"
    licence = "per image, column `license`; metadata CC BY-NC-SA 4.0"
    citation = "Cohen et al., COVID-19 Image Data Collection, arXiv 2006.11988, 2020"
    layout = """
get: git clone https://github.com/ieee8023/covid-chestxray-dataset
root contains metadata.csv (patientid, finding, view, modality, folder, filename) and images/
skipped: CT, lateral films (included with views=all), and findings that are todo, Unknown or neither class
  (only Tuberculosis or ARDS)
label: COVID-19 (1) or another pneumonia (0), without the few films of no finding; classes=3: all three
"""
    name = "covid-idc"
    folders = ("images",)
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the patients by hash, stratified by class.",
            flaws=(
                "films come from papers and web pages, and most of those show one disease: a model can "
                "recognise the source instead",
            ),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        if self.config.classes == 3:
            return self.describe(labels=CLASSES, label_kind="multiclass")
        return self.describe(labels=CLASSES[2:])

    def _version_suffix(self) -> tuple[str, ...]:
        views = ("all-views",) if self.config.views == "all" else ()
        return (*views, *(("3-classes",) if self.config.classes == 3 else ()))

    def _read(self) -> Iterable[Record]:
        yield from self.split_by_hash(self._films(), DEFAULT_FRACTIONS)

    def _films(self) -> Iterable[Record]:
        path = self.source("metadata.csv")
        # Some notes continue in a last column without a name; the columns read here precede them.
        for row in read_table(path, COLUMNS, self.bad, unnamed=True):
            patient, finding, view, modality, folder, file = (row.values[c] for c in COLUMNS)
            if modality != "X-ray" or (self.config.views == "frontal" and view not in FRONTAL):
                continue
            location = f"{path.name} line {row.line}"
            with self.bad:
                class_name = parse_finding(finding, location)
                if not patient or not file:
                    raise DataError(
                        f"{location}: no {'filename' if patient else 'patientid'}.",
                        "Download the table again.",
                    )
                labels = self._labels(class_name)
                if labels is not None:
                    film = ImagePayload(self.resolve_path(f"{folder}/{file}", location))
                    yield Record(file, patient, "", location, labels, payload=film)

    def _labels(self, class_name: str | None) -> tuple[int, ...] | None:
        if class_name is None:
            return None
        if self.config.classes == 3:
            return tuple(int(class_name == name) for name in CLASSES)
        return None if class_name == CLASSES[0] else (int(class_name == CLASSES[2]),)


def parse_finding(finding: str, location: str) -> str | None:
    """Map a finding to one of `CLASSES`; None = not labelled, or none of them.

    Raises:
        DataError: A word that the collection does not use; names the row.
    """
    words = [word.strip() for word in re.split("[/,]", finding) if word.strip()]
    known = {"COVID-19", "No Finding", *PNEUMONIA, *SKIPPED}
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        word = unknown[0] if unknown else ""
        raise DataError(f"{location}: unknown finding '{word}'.", did_you_mean(word, sorted(known)))
    if "COVID-19" in words:
        return CLASSES[2]
    if "No Finding" in words:
        return CLASSES[0]
    return CLASSES[1] if PNEUMONIA.intersection(words) else None
