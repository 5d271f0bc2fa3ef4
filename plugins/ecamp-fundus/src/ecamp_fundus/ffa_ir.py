"""FFA-IR: fluorescein angiographies with reports, for pre-training."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from ecamp.api import (
    DataError,
    DatasetInfo,
    ImagePayload,
    NamedSplits,
    PublicConfig,
    Record,
    SplitsByName,
    read_distilled,
    resolve_below_root,
)
from ecamp_fundus.base import FundusDataset

ANNOTATION = "ffair_annotation.json"
SPLITS = {"train": "pretrain", "val": "val", "test": "test"}


class FFAIRConfig(PublicConfig):
    """Choice of reports and number of images."""

    language: Literal["en", "zh"] = Field(default="en", description="language of the reports")
    per_case: int | None = Field(
        default=None,
        ge=1,
        description="images per case, evenly over the examination; default all",
    )
    distilled: str | None = Field(
        default=None, description="output file of `ecamp distill`, or JSON of case -> text"
    )


class FFAIR(FundusDataset[FFAIRConfig]):
    """FFA-IR: images of examinations, each with the report of its examination."""

    summary = "FFA-IR: 10,790 angiographies and their reports, for pre-training (credentialed)"
    licence = "PhysioNet Credentialed Health Data License 1.5.0"
    citation = "Li et al., FFA-IR, NeurIPS Datasets and Benchmarks 2021"
    layout = """
get: https://physionet.org/content/ffa-ir-medical-report (credentialed)
root contains ffair_annotation.json and the images of its `Image_path` lists, directly or in FFAIR/; unpack
  the parts FAIR.tar.gz.* together: cat FAIR.tar.gz.* | tar -xz
pre-training uses the cases of `train`; language=zh selects the Chinese reports
"""
    name = "ffa-ir"
    named_splits: ClassVar[SplitsByName] = {
        "official": NamedSplits("train, val, test of the annotation.")
    }

    @property
    def info(self) -> DatasetInfo:
        return self.describe(has_reports=True)

    def _version_suffix(self) -> tuple[str, ...]:
        count = self.config.per_case
        return (f"{count}-per-case",) if count else ()

    def _read(self) -> Iterable[Record]:
        path = self.source(ANNOTATION, f"*/{ANNOTATION}")
        distilled = {}
        if self.config.distilled is not None:
            self.sources.append(file := Path(self.config.distilled).expanduser())
            distilled = read_distilled(file)
        prefix = "FFAIR/" if (self.root / "FFAIR").is_dir() else ""
        for split, cases in _splits(path).items():
            for case, fields in cases.items():
                location = f"{path.name} {split} {case}"
                with self.bad:
                    report = _report(fields, self.config.language, location)
                    for image in _select(_images(fields, location), self.config.per_case):
                        payload = ImagePayload(
                            resolve_below_root(self.root, prefix + image, location)
                        )
                        yield Record(
                            image, case, SPLITS[split], location, report=report,
                            distilled=distilled.get(case) or None, payload=payload,
                        )  # fmt: skip


def _splits(path: Path) -> dict[str, Mapping[str, Any]]:
    """Read the annotation: split -> case -> fields of the case."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {error}.", "Download it again.") from error
    if not isinstance(value, dict) or not all(isinstance(value.get(name), dict) for name in SPLITS):
        raise DataError(f"{path}: does not map {', '.join(SPLITS)} to cases.", "Download it again.")
    return {name: value[name] for name in SPLITS}


def _report(fields: Any, language: str, location: str) -> str:
    """Return `En_Report`, or for Chinese the other field whose name ends in `_report`."""
    reports = {} if not isinstance(fields, dict) else {
        name: text for name, text in fields.items() if name.lower().endswith("_report")
    }  # fmt: skip
    texts = [text for name, text in reports.items() if (name == "En_Report") == (language == "en")]
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise DataError(
            f"{location}: no report in language '{language}'.",
            f"It has {', '.join(reports) or 'none'}.",
        )
    return texts[0].strip()


def _images(fields: Mapping[str, Any], location: str) -> list[str]:
    """Return the image paths, which are a list or a list written as text."""
    paths = fields.get("Image_path")
    try:
        paths = ast.literal_eval(paths) if isinstance(paths, str) else paths
    except (ValueError, SyntaxError) as error:
        raise DataError(f"{location}: 'Image_path' is not a list of paths.") from error
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise DataError(
            f"{location}: 'Image_path' is not a list of paths.", "Download the file again."
        )
    return paths


def _select(paths: list[str], count: int | None) -> list[str]:
    """Select `count` of an examination's images, evenly spaced; None: all."""
    if count is None or len(paths) <= count:
        return paths
    return [paths[(2 * k + 1) * len(paths) // (2 * count)] for k in range(count)]
