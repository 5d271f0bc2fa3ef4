"""MIMIC-CXR-JPG with its reports, for pre-training, in the folder layout of PhysioNet.

Layout: `mimic-cxr-2.0.0-metadata.csv.gz` and `mimic-cxr-2.0.0-split.csv.gz` next to
`files/p10/p10000032/s50414267/<dicom_id>.jpg`; reports `files/p10/p10000032/s50414267.txt`, in the
same tree or in one of their own. Credentialed data: it must be on disk, nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field

from ecamp.api.dataset import Dataset, DatasetInfo, Record, Sample
from ecamp.api.plugin import PluginConfig
from ecamp.config import identity
from ecamp.distill.sinks import read_distilled
from ecamp.errors import DataError, MissingError, did_you_mean
from ecamp.io.folders import check_images, missing_file_error, resolve_below_root
from ecamp.io.images import read_image
from ecamp.io.table import read_table
from ecamp.storage.files import content_hash
from ecamp.text.sections import findings_text

METADATA, SPLIT = "mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-split.csv.gz"
SPLITS = {"train": "pretrain", "validate": "val", "test": "test"}


class MimicCXRConfig(PluginConfig):
    """Folders of images and reports, and choice of views."""

    root: str = Field(description="folder with the two csv.gz files and files/")
    reports: str | None = Field(
        default=None, description="folder whose files/ contains the reports; default root"
    )
    views: list[str] = Field(default=["PA", "AP"], description="values of ViewPosition to keep")
    distilled: str | None = Field(
        default=None, description="output file of `ecamp distill`, or JSON of study id -> text"
    )


class MimicCXR(Dataset[MimicCXRConfig]):
    """Image-report pairs in the official splits; `train` becomes `pretrain`."""

    summary = "MIMIC-CXR-JPG and its reports, for pre-training (credentialed; never fetched)"
    licence = "PhysioNet Credentialed Health Data License 1.5.0"
    citation = "Johnson et al., MIMIC-CXR-JPG, PhysioNet 2019, doi 10.13026/8360-t248"
    layout = """
get: https://physionet.org/content/mimic-cxr-jpg (credentialed), reports: mimic-cxr-reports.zip of
  https://physionet.org/content/mimic-cxr
root contains mimic-cxr-2.0.0-metadata.csv.gz, mimic-cxr-2.0.0-split.csv.gz and
  files/p10/p10000032/s50414267/*.jpg; reports (or root) files/p10/p10000032/s50414267.txt
"""

    @property
    def root(self) -> Path:
        """The folder of the images."""
        return Path(self.config.root).expanduser()

    @property
    def info(self) -> DatasetInfo:
        # Mean and standard deviation of the published code.
        return DatasetInfo(
            name="mimic-cxr", version="2.0.0-official", has_reports=True,
            mean=(0.4721,), std=(0.3037,),
        )  # fmt: skip

    def _index(self, name: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
        path = self.root / name
        if not path.exists():
            raise missing_file_error(
                self.root, (name,),
                f"root is the folder with {METADATA}, {SPLIT} and files/, as downloaded.",
            )  # fmt: skip
        for row in read_table(path, columns):
            yield row.line, row.values

    @cached_property
    def _distilled(self) -> dict[str, str]:
        if self.config.distilled is None:
            return {}
        texts = read_distilled(Path(self.config.distilled).expanduser())
        return {study.removeprefix("s"): text for study, text in texts.items()}

    def records(self) -> Sequence[Record]:
        return self._records

    @cached_property
    def _records(self) -> list[Record]:
        views: dict[str, str] = {}
        for _, row in self._index(METADATA, ("dicom_id", "ViewPosition")):
            views[row["dicom_id"]] = row["ViewPosition"]
        records, reports = [], {}
        seen: dict[str, str] = {}
        for line, row in self._index(SPLIT, ("dicom_id", "study_id", "subject_id", "split")):
            location = f"{SPLIT} line {line}"
            if views.get(row["dicom_id"]) not in self.config.views:
                continue
            if row["split"] not in SPLITS:
                raise DataError(
                    f"{location}: unknown split '{row['split']}'.",
                    did_you_mean(row["split"], SPLITS),
                )
            subject, study = row["subject_id"], row["study_id"]
            if row["dicom_id"] in seen:
                raise DataError(
                    f"{location}: duplicate dicom_id '{row['dicom_id']}' (first in {seen[row['dicom_id']]}).",
                    "Remove one row, or download the table again.",
                )
            seen[row["dicom_id"]] = location
            folder = Path("files") / f"p{subject[:2]}" / f"p{subject}"
            image = resolve_below_root(
                self.root, (folder / f"s{study}" / f"{row['dicom_id']}.jpg").as_posix(), location
            )
            if study not in reports:
                reports[study] = self._report(folder / f"s{study}.txt")
            records.append(
                Record(
                    id=row["dicom_id"],
                    patient=subject,
                    split=SPLITS[row["split"]],
                    row=location,
                    report=reports[study] or None,
                    distilled=self._distilled.get(study) or None,
                    payload=Path(image),
                )
            )
        check_images(self.root, [(record.payload, record.row) for record in records], ())
        if records and not any(reports.values()):
            raise MissingError(
                f"{self.config.reports or self.root}: no report below files/.",
                "Unpack mimic-cxr-reports.zip and name its folder: mimic-cxr?root=...&reports=...",
            )
        return records

    def _report(self, path: Path) -> str:
        try:
            base = Path(self.config.reports).expanduser() if self.config.reports else self.root
            return findings_text((base / path).read_text(encoding="utf-8", errors="replace"))
        except FileNotFoundError:
            return ""  # a study without a report; pre-training that needs one skips it

    def load(self, record: Record, size: int) -> Sample:
        return Sample(read_image(self.root / record.payload, "grey", record.row))

    def fingerprint(self) -> str:
        files = [content_hash(self.root / name) for name in (METADATA, SPLIT)]
        distilled = self.config.distilled
        files.append(content_hash(Path(distilled).expanduser()) if distilled else "")
        # 2: headings within a line end a section too
        return identity(["mimic-cxr", 2, self.config.views, files])
