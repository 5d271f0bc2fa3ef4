"""PadChest: films of San Juan Hospital, Alicante; findings from reports, by physicians or a network.

Why: docs/decisions.md#padchest-is-tested-on-physicians-labels.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from ecamp.api.dataset import DatasetInfo, Record
from ecamp.datasets.named_splits import NamedSplits, SplitsByName
from ecamp.datasets.public import DEFAULT_FRACTIONS, ImagePayload, PublicConfig, PublicDataset
from ecamp.errors import DataError, did_you_mean
from ecamp.io.folders import resolve_below_root
from ecamp.io.table import read_table

TABLE = "PADCHEST_chest_x_ray_images_labels_160K*.csv"
COLUMNS = ("ImageID", "ImageDir", "PatientID", "Projection", "MethodLabel", "Labels")
FRONTAL = ("PA", "AP", "AP_horizontal")
PHYSICIAN, METHODS = "Physician", ("Physician", "RNN_model")
# Finding -> terms below it in the authors' tree (github.com/auriml/Rx-thorax-automatic-captioning): a
# report that names the narrower term implies the wider one.
FINDINGS: Mapping[str, tuple[str, ...]] = {
    "air trapping": (),
    "aortic atheromatosis": (),
    "aortic elongation": (
        "ascendent aortic elongation", "descendent aortic elongation", "supra aortic elongation",
        "aortic button enlargement",
    ),
    "atelectasis": (
        "total atelectasis", "lobar atelectasis", "segmental atelectasis", "laminar atelectasis",
        "round atelectasis", "atelectasis basal",
    ),
    "bronchiectasis": (),
    "cardiomegaly": (),
    "consolidation": ("air bronchogram",),
    "copd signs": (),
    "costophrenic angle blunting": (),
    "emphysema": (),
    "fracture": (
        "rib fracture", "callus rib fracture", "clavicle fracture", "humeral fracture",
        "vertebral fracture",
    ),
    "granuloma": ("calcified granuloma",),
    "heart insufficiency": (),
    "hemidiaphragm elevation": (),
    "hiatal hernia": (),
    "hilar enlargement": (
        "adenopathy", "calcified adenopathy", "calcified mediastinal adenopathy",
        "vascular hilar enlargement", "pulmonary artery enlargement",
    ),
    "infiltrates": (
        "interstitial pattern", "ground glass pattern", "reticular interstitial pattern",
        "reticulonodular interstitial pattern", "miliary opacities", "alveolar pattern",
        "consolidation", "air bronchogram",
    ),
    "nodule": ("multiple nodules",),
    "pleural effusion": (
        "loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax", "empyema",
        "hemothorax",
    ),
    "pleural thickening": ("apical pleural thickening", "calcified pleural thickening"),
    "pneumonia": ("atypical pneumonia", "viral pneumonia"),
    "pneumothorax": ("hydropneumothorax",),
    "pulmonary edema": (),
    "pulmonary fibrosis": ("post radiotherapy changes", "asbestosis signs"),
    "pulmonary mass": (),
    "scoliosis": (),
    "tuberculosis": ("tuberculosis sequelae",),
}  # fmt: skip


class PadChestConfig(PublicConfig):
    """Choice of films and labels."""

    views: Literal["frontal", "all"] = Field(
        default="frontal", description="frontal: PA, AP, AP_horizontal"
    )
    labels: Literal["physician", "all"] = Field(
        default="physician", description="all: labels of a network also in validation and test"
    )


class PadChest(PublicDataset[PadChestConfig]):
    """27 findings per film; the reports are stemmed Spanish and are not read."""

    summary = "PadChest: 160,000 films of 67,000 patients, 27 findings"
    licence = "PadChest research use agreement of BIMCV, no redistribution"
    citation = "Bustos et al., PadChest, Medical Image Analysis 2020, arXiv 1901.07441"
    layout = """
get: https://bimcv.cipf.es/bimcv-projects/padchest (a form to sign)
root contains PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv (or .csv.gz) and the films, 16-bit PNG, in
  0/, ..., 54/ as unpacked, in images*/, or flat
labels: 27 findings with the narrower terms of the authors' tree; names must match whole (a pseudonodule is
  not a nodule). In a report with `unchanged` the named findings are present and the others unknown; films
  with `exclude` or no term are skipped. A cell that is empty or not a list is a bad row (the release has
  some: on_bad_row=skip)
validation and test contain films labelled by physicians only; labels=all adds those of the network
views: PA, AP and AP_horizontal; views=all adds L and COSTAL
some files of the release are damaged: `ecamp data check` lists them, --on-bad-image skip skips them
"""
    name = "padchest"
    folders = ("[0-9]", "[0-9][0-9]", "images*")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the patients by hash, stratified by finding; validation and test keep the "
            "films labelled by physicians.",
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        return self.describe(labels=tuple(FINDINGS))

    def _version_suffix(self) -> tuple[str, ...]:
        views = ("all-views",) if self.config.views == "all" else ()
        return (*views, *(("all-labels",) if self.config.labels == "all" else ()))

    def _read(self) -> Iterable[Record]:
        physicians: set[str] = set()
        for record in self.split_by_hash(self._films(physicians), DEFAULT_FRACTIONS):
            if self.config.labels == "all" or record.split == "train" or record.id in physicians:
                yield record

    def _films(self, physicians: set[str]) -> Iterator[Record]:
        """Read all labelled films, without splits; add those labelled by physicians to `physicians`."""
        path = self.source(TABLE, f"{TABLE}.gz")
        for row in read_table(path, COLUMNS, self.bad):
            file, folder, patient, view, method, text = (row.values[c] for c in COLUMNS)
            if view == "EXCLUDE" or (self.config.views == "frontal" and view not in FRONTAL):
                continue
            location = f"{path.name} line {row.line}"
            with self.bad:
                if method not in METHODS:
                    hint = did_you_mean(method, METHODS)
                    raise DataError(f"{location}: unknown MethodLabel '{method}'.", hint)
                if not file or not patient:
                    raise DataError(
                        f"{location}: {'PatientID' if file else 'ImageID'} is empty.",
                        "Download the table again, or use on_bad_row=skip.",
                    )
                labels = labels_from_terms(parse_terms(text, location))
                if labels is None:
                    continue
                if method == PHYSICIAN:
                    physicians.add(file)
                film = ImagePayload(self._film_path(folder.removesuffix(".0"), file, location))
                yield Record(file, patient, "", location, labels, payload=film)

    def _film_path(self, folder: str, file: str, location: str) -> str:
        path = self.resolve_path(f"{folder}/{file}", location)
        flat = path not in self.images.paths and (self.root / file).is_file()
        return resolve_below_root(self.root, file, location) if flat else path


def parse_terms(text: str, location: str) -> set[str]:
    """Parse a cell of Labels, `['nodule', ' pleural effusion']`, to stripped lower-case terms.

    Raises:
        DataError: Empty, `nan`, or not a list of texts; names the row.
    """
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        problem = f"'{text[:60]}' is not a list of labels" if text else "no labels"
        raise DataError(f"{location}: {problem}.", "on_bad_row=skip skips and counts such rows.")
    return {name.strip().lower() for name in value} - {""}


def labels_from_terms(named: set[str]) -> tuple[int | None, ...] | None:
    """Convert terms to one label per finding; None = the film is not labelled.

    A report of an unchanged film refers to the previous one: findings that it does not name are unknown.
    """
    if not named or "exclude" in named:
        return None
    absent = None if "unchanged" in named else 0
    return tuple(1 if _is_named(name, FINDINGS[name], named) else absent for name in FINDINGS)


def _is_named(name: str, narrower: Sequence[str], named: set[str]) -> bool:
    return name in named or not named.isdisjoint(narrower)
