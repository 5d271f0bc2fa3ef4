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
from ecamp.datasets.public import SHARES, ImagePayload, PublicConfig, PublicDataset
from ecamp.distill.sinks import read_distilled
from ecamp.errors import DataError, UsageError, did_you_mean
from ecamp.io.folders import find_file, resolve_below_root
from ecamp.io.table import BadRows, read_table
from ecamp.text.sections import findings_text

REPORTS, PROJECTIONS = "indiana_reports.csv", "indiana_projections.csv"
ANNOTATION, SPLIT_TABLE, XML = "annotation.json", "r2gen_split*.csv", "ecgen-radiology/*.xml"
# Label -> headings of the indexers (the first part of a MeSH entry) that show it. Chosen by number: at
# least 20 of the 2,503 studies of a public part of the table have it. Synonyms are put together.
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
# Studies with these headings alone are not labelled.
UNKNOWN = {"", "No Indexing", "Technical Quality of Image Unsatisfactory"}
NO_PATIENTS = "the release names no patients: each examination counts as one"
NO_VIEWS = "the files name no views: lateral films are among the images"


@dataclass(frozen=True)
class Study:
    """One examination: the text as `told`, one label a finding (None = not indexed)."""

    uid: str
    report: str
    labels: tuple[int | None, ...] | None


class IUXrayConfig(PublicConfig):
    """Which films, and distilled text."""

    views: Literal["frontal", "all"] | None = Field(
        default=None, description="default: frontal where the files name views, else all"
    )
    distilled: str | None = Field(
        default=None, description="a file of `ecamp distill`, or JSON of uid -> text"
    )


class IUXray(PublicDataset[IUXrayConfig]):
    """Findings and impression of each examination, and the indexers' headings as labels."""

    summary = "IU X-ray (Open-i): films and reports, 11 findings; to pre-train on and to classify"
    licence = "CC BY-NC-ND 4.0"
    citation = "Demner-Fushman et al., JAMIA 2016, doi 10.1093/jamia/ocv080"
    layout = f"""
get: https://openi.nlm.nih.gov/faq, Kaggle raddar/chest-xrays-indiana-university, or R2Gen's copy
root holds one of
  {REPORTS}, {PROJECTIONS} and images/images_normalized/*.png (Kaggle)
  {ANNOTATION} and images/CXR1_1_IM-0001/0.png, ... (R2Gen; no labels, no views, findings alone)
  ecgen-radiology/*.xml and NLMCXR_png/*.png (Open-i; no views)
protocol r2gen reads the split from {ANNOTATION}, or from r2gen_split*.csv (uid, r2gen_split), in root
text that the release removed stands as XXXX in the reports and is left there
"""
    name = "iu-xray"
    folders = ("images", "images_normalized", "NLMCXR_png")
    named_splits: ClassVar[SplitsByName] = {
        "ecamp": NamedSplits(
            "70 / 10 / 20 % of the examinations by hash, stratified by finding; examinations whose reports "
            "are the same text are in one split.",
            flaws=(NO_PATIENTS,),
        ),
        "r2gen": NamedSplits(
            "R2Gen's split of 2,955 examinations with two films.", (4_138, 592, 1_180),
            "9ca0834c14164662",
            flaws=(
                "the findings of 274 of 590 test examinations stand word for word in training",
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
        """Whether lateral films are left out."""
        if self.config.views == "frontal" and not self._tables:
            raise UsageError(
                f"{self.name}: views=frontal, but only {PROJECTIONS} says which films are.",
                f"Put {REPORTS} and {PROJECTIONS} into root, or leave views out.",
            )
        return self._tables and self.config.views != "all"

    def _choices(self) -> tuple[str, ...]:
        return ("frontal",) if self._frontal else ()

    @cached_property
    def _flaws(self) -> tuple[str, ...]:
        """Also: reports of held-out examinations that are another's, word for word."""
        flaws = [*super()._flaws, *repeated(self._records)]
        return (*flaws, *(() if self._tables else (NO_VIEWS,)))

    # --- films ------------------------------------------------------------------------------------

    def _read(self) -> Iterable[Record]:
        films = self._films()
        if self.splits_name == "r2gen":
            for record in films:
                if record.patient in self._r2gen:
                    yield replace(record, split=self._r2gen[record.patient])
        else:
            yield from self.drawn(films, SHARES, together=lambda r: same_text(r) or r.patient)

    def _films(self) -> Iterator[Record]:
        """Films of whichever layout there is; no split yet."""
        first = self.source(REPORTS, ANNOTATION, XML)
        frontal = self._frontal  # refuses an option that the files cannot answer
        if first.name == REPORTS:
            yield from self._of_tables(frontal)
        elif first.name == ANNOTATION:
            yield from self._of_annotation(first)
        else:
            yield from self._of_xml(first.parent)

    def _of_tables(self, frontal: bool) -> Iterator[Record]:
        studies, path = self._studies(), self.source(PROJECTIONS)
        for row in read_table(path, ("uid", "filename", "projection"), self.bad):
            where = f"{path.name} line {row.line}"
            with self.bad:
                uid, view = row.values["uid"], row.values["projection"]
                if view not in ("Frontal", "Lateral"):
                    hint = did_you_mean(view, ("Frontal", "Lateral"))
                    raise DataError(f"{where}: '{view}' is no projection.", hint)
                if uid not in studies:
                    raise DataError(f"{where}: uid '{uid}' is not in {REPORTS}.")
                if view == "Frontal" or not frontal:
                    place = self.place(row.values["filename"], where)
                    yield self._record(row.values["filename"], place, studies[uid], where)

    def _studies(self) -> dict[str, Study]:
        columns = ("uid", "MeSH", "findings", "impression")
        found: dict[str, Study] = {}
        for row in read_table(self.root / REPORTS, columns, self.bad):
            where, uid = f"{REPORTS} line {row.line}", row.values["uid"]
            with self.bad:
                if uid in found:
                    raise DataError(f"{where}: uid '{uid}' stands twice.", "Remove one row.")
                sections = {name.upper(): row.values[name] for name in columns[2:]}
                labels = labels_of(row.values["MeSH"].split(";"))
                found[uid] = Study(uid, report_of(sections), labels)
        return found

    def _of_annotation(self, path: Path) -> Iterator[Record]:
        for _, item, where in _items(path):
            with self.bad:
                report, paths = _field(item, "report", where), _field(item, "image_path", where)
                if not isinstance(report, str):
                    raise DataError(f"{where}: 'report' is no text.")
                if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
                    raise DataError(f"{where}: 'image_path' is no list of paths.")
                study = Study(_uid(_field(item, "id", where), where), findings_text(report), None)
                # Every examination has a 0.png: only the path tells which, the name never does.
                places = [resolve_below_root(self.root, f"images/{p}", where) for p in paths]
                for p, place in zip(paths, places, strict=True):
                    yield self._record(p, place, study, where)

    def _of_xml(self, folder: Path) -> Iterator[Record]:
        for path in sorted(folder.glob("*.xml")):
            self.sources.append(path)
            with self.bad:
                study, films = read_xml(path)
                for film in films:
                    yield self._record(film, self.place(film, path.name), study, path.name)

    def _record(self, name: str, place: str, study: Study, where: str) -> Record:
        return Record(
            name, study.uid, "", where, study.labels, study.report or None,
            self._distilled.get(study.uid) or None, payload=ImagePayload(place),
        )  # fmt: skip

    @cached_property
    def _distilled(self) -> dict[str, str]:
        if self.config.distilled is None:
            return {}
        self.sources.append(file := Path(self.config.distilled).expanduser())
        return {uid_of(name) or name: text for name, text in read_distilled(file).items()}

    @cached_property
    def _r2gen(self) -> dict[str, str]:
        """Examination -> split."""
        path = self.source(ANNOTATION, SPLIT_TABLE)
        found: dict[str, str] = {}
        for name, item, where in _split_rows(path, self.bad):
            with self.bad:
                uid = _uid(_field(item, "id", where), where)
                split = item.get("split", name)
                if split not in SPLITS:
                    raise DataError(f"{where}: split '{split}' is none of {', '.join(SPLITS)}.")
                if uid in found:
                    raise DataError(f"{where}: uid '{uid}' stands twice.", "Remove one row.")
                found[uid] = split
        return found


def report_of(sections: Mapping[str, str]) -> str:
    """Sections by heading as one text, with the rules of every other report."""
    return findings_text("\n".join(f"{name}:\n{text}" for name, text in sections.items() if text))


def labels_of(entries: Iterable[str]) -> tuple[int | None, ...]:
    """One label a finding from MeSH entries (`Nodule/lung/lingula`), or unknown ones."""
    headings = {entry.split("/")[0].strip().lower() for entry in entries}
    if headings <= {name.lower() for name in UNKNOWN}:
        return (None,) * len(FINDINGS)
    return tuple(
        int(any(name.lower() in headings for name in names)) for names in FINDINGS.values()
    )


def uid_of(name: str) -> str | None:
    """Number of an examination: `CXR2384_IM-0942`, `CXR12` and `12` tell it."""
    match = re.match(r"(?:CXR)?(\d+)(?:_|$)", name)
    return match[1] if match else None


def read_xml(path: Path) -> tuple[Study, list[str]]:
    """An examination of Open-i's own files, and the names of its films.

    Raises:
        DataError: No such form.
    """
    try:
        tree = ElementTree.fromstring(path.read_bytes())
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise DataError(f"{path}: no XML: {error}.", "Download it again.") from error
    named = tree.find("uId")
    uid = None if named is None else uid_of(named.get("id", ""))
    if uid is None:
        raise DataError(f"{path}: no uId that names the examination.", '<uId id="CXR12"/>')
    texts = {node.get("Label", ""): (node.text or "").strip() for node in tree.iter("AbstractText")}
    sections = {name: texts.get(name, "") for name in ("FINDINGS", "IMPRESSION")}
    headings = [node.text or "" for node in tree.findall(".//MeSH/major")]
    films = [f"{node.get('id', '')}.png" for node in tree.iter("parentImage")]
    return Study(uid, report_of(sections), labels_of(headings)), films


def same_text(record: Record) -> str:
    """The report but for case and white space; empty without one."""
    return " ".join((record.report or "").lower().split())


def repeated(records: Iterable[Record]) -> Iterator[str]:
    """How many held-out examinations have a report that another split has too."""
    texts: dict[str, dict[str, str]] = {split: {} for split in SPLITS}
    for record in records:
        if text := same_text(record):
            texts[record.split][record.patient] = text
    for held, other in (("test", "train"), ("val", "train")):
        known = set(texts[other].values())
        count = sum(text in known for text in texts[held].values())
        if count:
            yield (
                f"the reports of {count:,} of {len(texts[held]):,} {held} examinations stand word for "
                f"word in {other}"
            )


def _items(path: Path) -> Iterator[tuple[str, Any, str]]:
    """Entries of R2Gen's file: list, entry, where it stands."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: no JSON: {error}.", "Download it again.") from error
    if not isinstance(value, dict) or not all(isinstance(v, list) for v in value.values()):
        raise DataError(f"{path}: does not map {', '.join(SPLITS)} to lists.", "Download it again.")
    for name, items in value.items():
        for k, item in enumerate(items):
            yield name, item, f"{path.name} {name} {k}"


def _field(item: Any, name: str, where: str) -> Any:
    if not isinstance(item, dict) or name not in item:
        raise DataError(f"{where}: no '{name}'.", "Download the file again.")
    return item[name]


def _uid(name: object, where: str) -> str:
    uid = uid_of(str(name))
    if uid is None:
        raise DataError(f"{where}: '{name}' names no examination.", "CXR12_IM-0001, or 12")
    return uid


def _split_rows(path: Path, bad: BadRows) -> Iterator[tuple[str, Any, str]]:
    """As `_items`, of a table too."""
    if path.suffix == ".json":
        yield from _items(path)
        return
    for row in read_table(path, ("uid", "r2gen_split"), bad):
        item = {"id": row.values["uid"]}
        yield row.values["r2gen_split"], item, f"{path.name} line {row.line}"
