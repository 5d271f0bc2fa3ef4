"""IU X-ray (Open-i of the NLM): chest examinations of Indiana University with their reports.

Why: docs/decisions.md#equal-reports-stay-in-one-split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal
from xml.etree import ElementTree

from pydantic import Field

from ecamp.api.dataset import DatasetInfo, Record
from ecamp.datasets.named_splits import SPLITS, NamedSplits, SplitsByName
from ecamp.datasets.public import (
    DEFAULT_FRACTIONS,
    NO_PATIENTS,
    ImagePayload,
    PublicConfig,
    PublicDataset,
)
from ecamp.distill.sinks import read_distilled
from ecamp.errors import DataError, UsageError, did_you_mean
from ecamp.io.folders import find_file, resolve_below_root
from ecamp.io.table import BadRows, read_table
from ecamp.text.sections import findings_text

REPORTS, PROJECTIONS = "indiana_reports.csv", "indiana_projections.csv"
ANNOTATION, SPLIT_TABLE, XML = "annotation.json", "r2gen_split*.csv", "ecgen-radiology/*.xml"
# Label -> headings of the indexers (the first part of a MeSH entry) that imply it. Labels that at least 20
# of the 2,503 studies of a public part of the table have; synonyms are merged.
FINDINGS: Mapping[str, tuple[str, ...]] = {
    "Airspace Disease": ("Airspace Disease", "Consolidation", "Infiltrate", "Pneumonia"),
    "Atelectasis": ("Pulmonary Atelectasis",),
    "Calcified Granuloma": ("Calcified Granuloma",),
    "Cardiomegaly": ("Cardiomegaly",),
    "Congestion or Edema": ("Pulmonary Congestion", "Pulmonary Edema"),
    "Effusion": ("Pleural Effusion",),
    "Emphysema": ("Emphysema", "Pulmonary Emphysema"),
    "Fracture": ("Fractures, Bone",),
    "Nodule or Mass": ("Nodule", "Mass"),
    "Opacity": ("Opacity",),
    "Scar": ("Cicatrix",),
}
# Studies with only these headings are not labelled.
UNKNOWN = {"", "No Indexing", "Technical Quality of Image Unsatisfactory"}
NO_VIEWS = "the files name no views: lateral films are among the images"


@dataclass(frozen=True)
class Study:
    """One examination.

    Attributes:
        uid: Its number.
        report: Findings and impression.
        labels: One per finding; None = not indexed.
    """

    uid: str
    report: str
    labels: tuple[int | None, ...] | None


class IUXrayConfig(PublicConfig):
    """Choice of films, and distilled text."""

    views: Literal["frontal", "all"] | None = Field(
        default=None, description="default: frontal if the files name views, else all"
    )
    distilled: str | None = Field(
        default=None, description="output file of `ecamp distill`, or JSON of uid -> text"
    )


class IUXray(PublicDataset[IUXrayConfig]):
    """Films with findings and impression as reports, and the indexers' headings as labels."""

    summary = "IU X-ray (Open-i): films and reports, 11 findings; to pre-train on and to classify"
    licence = "CC BY-NC-ND 4.0"
    citation = "Demner-Fushman et al., JAMIA 2016, doi 10.1093/jamia/ocv080"
    layout = f"""
get: https://openi.nlm.nih.gov/faq, Kaggle raddar/chest-xrays-indiana-university, or R2Gen's copy
root contains one of
  {REPORTS}, {PROJECTIONS} and images/images_normalized/*.png (Kaggle)
  {ANNOTATION} and images/CXR1_1_IM-0001/0.png, ... (R2Gen; no labels, no views, only findings)
  ecgen-radiology/*.xml and NLMCXR_png/*.png (Open-i; no views)
splits=r2gen reads the split from {ANNOTATION}, or from r2gen_split*.csv (uid, r2gen_split), in root
text that was removed for anonymity is XXXX in the reports and stays so
"""
    name = "iu-xray"
    folders = ("images", "images_normalized", "NLMCXR_png")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the examinations by hash, stratified by finding; examinations whose reports "
            "are identical are in one split.",
            flaws=(NO_PATIENTS,),
        ),
        "r2gen": NamedSplits(
            "R2Gen's split of 2,955 examinations with two films.", (4_138, 592, 1_180),
            "9ca0834c14164662",
            flaws=(
                "the findings of 274 of 590 test examinations appear verbatim in training",
                NO_PATIENTS,
            ),
        ),
    }  # fmt: skip

    @property
    def info(self) -> DatasetInfo:
        labelled = any(record.labels for record in self._records)
        return self.describe(labels=tuple(FINDINGS) if labelled else (), has_reports=True)

    @cached_property
    def _tables(self) -> bool:
        return find_file(self.root, REPORTS) is not None

    @property
    def _frontal(self) -> bool:
        """Whether lateral films are skipped."""
        if self.config.views == "frontal" and not self._tables:
            raise UsageError(
                f"{self.name}: views=frontal needs {PROJECTIONS}, which names the views.",
                f"Put {REPORTS} and {PROJECTIONS} into root, or leave views out.",
            )
        return self._tables and self.config.views != "all"

    def _version_suffix(self) -> tuple[str, ...]:
        return ("frontal",) if self._frontal else ()

    @cached_property
    def _flaws(self) -> tuple[str, ...]:
        """Also reports of held-out examinations that appear verbatim in training."""
        flaws = [*super()._flaws, *find_repeated_reports(self._records)]
        return (*flaws, *(() if self._tables else (NO_VIEWS,)))

    # --- films ------------------------------------------------------------------------------------

    def _read(self) -> Iterable[Record]:
        films = self._films()
        if self.splits_name == "r2gen":
            for record in films:
                if record.patient in self._r2gen:
                    yield replace(record, split=self._r2gen[record.patient])
        else:
            yield from self.split_by_hash(
                films, DEFAULT_FRACTIONS, group=lambda r: normalised_report(r) or r.patient
            )

    def _films(self) -> Iterator[Record]:
        """Read the films of the layout that root has; without splits."""
        first = self.source(REPORTS, ANNOTATION, XML)
        frontal = self._frontal  # raises if the files do not name the views
        if first.name == REPORTS:
            yield from self._from_tables(frontal)
        elif first.name == ANNOTATION:
            yield from self._from_annotation(first)
        else:
            yield from self._from_xml(first.parent)

    def _from_tables(self, frontal: bool) -> Iterator[Record]:
        studies, table = self._studies(), self.source(PROJECTIONS)
        for row in read_table(table, ("uid", "filename", "projection"), self.bad):
            location = f"{table.name} line {row.line}"
            with self.bad:
                uid, view = row.values["uid"], row.values["projection"]
                if view not in ("Frontal", "Lateral"):
                    hint = did_you_mean(view, ("Frontal", "Lateral"))
                    raise DataError(f"{location}: unknown projection '{view}'.", hint)
                if uid not in studies:
                    raise DataError(
                        f"{location}: uid '{uid}' is not in {REPORTS}.",
                        "Download both tables again.",
                    )
                if view == "Frontal" or not frontal:
                    path = self.resolve_path(row.values["filename"], location)
                    yield self._record(row.values["filename"], path, studies[uid], location)

    def _studies(self) -> dict[str, Study]:
        columns = ("uid", "MeSH", "findings", "impression")
        studies: dict[str, Study] = {}
        for row in read_table(self.root / REPORTS, columns, self.bad):
            location, uid = f"{REPORTS} line {row.line}", row.values["uid"]
            with self.bad:
                if uid in studies:
                    raise DataError(f"{location}: duplicate uid '{uid}'.", "Remove one row.")
                sections = {name.upper(): row.values[name] for name in columns[2:]}
                labels = labels_from_mesh(row.values["MeSH"].split(";"))
                studies[uid] = Study(uid, join_sections(sections), labels)
        return studies

    def _from_annotation(self, path: Path) -> Iterator[Record]:
        for _, item, location in _items(path):
            with self.bad:
                report, paths = (
                    _field(item, "report", location),
                    _field(item, "image_path", location),
                )
                if not isinstance(report, str):
                    raise DataError(
                        f"{location}: 'report' is not a text.", "Download the file again."
                    )
                if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
                    raise DataError(
                        f"{location}: 'image_path' is not a list of paths.",
                        "Download the file again.",
                    )
                study = Study(
                    _require_uid(_field(item, "id", location), location),
                    findings_text(report),
                    None,
                )
                # Every examination has a 0.png: only the path identifies a film.
                resolved = [resolve_below_root(self.root, f"images/{p}", location) for p in paths]
                for name, film in zip(paths, resolved, strict=True):
                    yield self._record(name, film, study, location)

    def _from_xml(self, folder: Path) -> Iterator[Record]:
        for path in sorted(folder.glob("*.xml")):
            self.sources.append(path)
            with self.bad:
                study, films = read_xml(path)
                for film in films:
                    yield self._record(film, self.resolve_path(film, path.name), study, path.name)

    def _record(self, name: str, path: str, study: Study, location: str) -> Record:
        return Record(
            name, study.uid, "", location, study.labels, study.report or None,
            self._distilled.get(study.uid) or None, payload=ImagePayload(path),
        )  # fmt: skip

    @cached_property
    def _distilled(self) -> dict[str, str]:
        if self.config.distilled is None:
            return {}
        self.sources.append(file := Path(self.config.distilled).expanduser())
        return {parse_uid(name) or name: text for name, text in read_distilled(file).items()}

    @cached_property
    def _r2gen(self) -> dict[str, str]:
        """Number of an examination -> its split."""
        path = self.source(ANNOTATION, SPLIT_TABLE)
        splits: dict[str, str] = {}
        for name, item, location in _split_rows(path, self.bad):
            with self.bad:
                uid = _require_uid(_field(item, "id", location), location)
                split = item.get("split", name)
                if split not in SPLITS:
                    raise DataError(
                        f"{location}: unknown split '{split}'.", did_you_mean(str(split), SPLITS)
                    )
                if uid in splits:
                    raise DataError(f"{location}: duplicate uid '{uid}'.", "Remove one row.")
                splits[uid] = split
        return splits


def join_sections(sections: Mapping[str, str]) -> str:
    """Join sections, by heading, to one report and read it like every other report."""
    return findings_text("\n".join(f"{name}:\n{text}" for name, text in sections.items() if text))


def labels_from_mesh(entries: Iterable[str]) -> tuple[int | None, ...]:
    """Convert MeSH entries (`Nodule/lung/lingula`) to one label per finding; None = not indexed."""
    headings = {entry.split("/")[0].strip().lower() for entry in entries}
    if headings <= {name.lower() for name in UNKNOWN}:
        return (None,) * len(FINDINGS)
    return tuple(
        int(any(name.lower() in headings for name in names)) for names in FINDINGS.values()
    )


def parse_uid(name: str) -> str | None:
    """Parse the number of an examination from `CXR2384_IM-0942`, `CXR12` or `12`."""
    match = re.match(r"(?:CXR)?(\d+)(?:_|$)", name)
    return match[1] if match else None


def read_xml(path: Path) -> tuple[Study, list[str]]:
    """Read an examination from a file of Open-i, and the names of its films.

    Raises:
        DataError: Not XML, or without the number of the examination; names the file.
    """
    try:
        tree = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise DataError(f"{path}: not valid XML: {error}.", "Download it again.") from error
    node = tree.find("uId")
    uid = None if node is None else parse_uid(node.get("id", ""))
    if uid is None:
        raise DataError(f"{path}: no uId with the examination.", 'Expected <uId id="CXR12"/>.')
    texts = {node.get("Label", ""): (node.text or "").strip() for node in tree.iter("AbstractText")}
    sections = {name: texts.get(name, "") for name in ("FINDINGS", "IMPRESSION")}
    headings = [node.text or "" for node in tree.findall(".//MeSH/major")]
    films = [f"{node.get('id', '')}.png" for node in tree.iter("parentImage")]
    return Study(uid, join_sections(sections), labels_from_mesh(headings)), films


def normalised_report(record: Record) -> str:
    """Return the report in lower case with single spaces; empty if there is none."""
    return " ".join((record.report or "").lower().split())


def find_repeated_reports(records: Iterable[Record]) -> Iterator[str]:
    """Count the held-out examinations whose report also appears in training."""
    texts: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    for record in records:
        if text := normalised_report(record):
            texts[record.split][record.patient] = text
    for held_out, other in (("test", "train"), ("val", "train")):
        known = set(texts[other].values())
        count = sum(text in known for text in texts[held_out].values())
        if count:
            yield (
                f"the reports of {count:,} of {len(texts[held_out]):,} {held_out} examinations appear "
                f"verbatim in {other}"
            )


def _items(path: Path) -> Iterator[tuple[str, Any, str]]:
    """Read the entries of R2Gen's file: name of the list, entry, location."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}.", "Download it again.") from error
    if not isinstance(value, dict) or not all(isinstance(v, list) for v in value.values()):
        raise DataError(f"{path}: does not map {', '.join(SPLITS)} to lists.", "Download it again.")
    for name, items in value.items():
        for k, item in enumerate(items):
            yield name, item, f"{path.name} {name} {k}"


def _field(item: Any, name: str, location: str) -> Any:
    if not isinstance(item, dict) or name not in item:
        raise DataError(f"{location}: no '{name}'.", "Download the file again.")
    return item[name]


def _require_uid(name: object, location: str) -> str:
    uid = parse_uid(str(name))
    if uid is None:
        raise DataError(
            f"{location}: '{name}' is not an examination.",
            "Examinations are like CXR12_IM-0001 or 12.",
        )
    return uid


def _split_rows(path: Path, bad: BadRows) -> Iterator[tuple[str, Any, str]]:
    """Read the same from R2Gen's file or from a table of splits."""
    if path.suffix == ".json":
        yield from _items(path)
        return
    for row in read_table(path, ("uid", "r2gen_split"), bad):
        item = {"id": row.values["uid"]}
        yield row.values["r2gen_split"], item, f"{path.name} line {row.line}"
