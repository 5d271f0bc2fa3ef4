"""Procedural chest radiographs with truth and reports: the built-in data set.

Why: docs/decisions.md#the-phantom-is-the-default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import Field

from ecamp.api.dataset import Dataset, DatasetInfo, Record, Sample
from ecamp.api.plugin import PluginConfig
from ecamp.config import identity
from ecamp.datasets.phantom.findings import FINDINGS
from ecamp.datasets.phantom.study import (
    BLOCK,
    GENERATOR_VERSION,
    Description,
    describe_study,
    oracle_text,
    render_study,
)
from ecamp.distill.sinks import read_distilled
from ecamp.storage.files import content_hash


class PhantomConfig(PluginConfig):
    """Studies per split (rounded up to whole blocks of patients) and the seed."""

    seed: int = Field(default=0, ge=0, description="seed of the population")
    pretrain: int = Field(default=6000, ge=0, description="image-report pairs to pre-train on")
    train: int = Field(default=2000, ge=0, description="labelled images to train on")
    val: int = Field(default=500, ge=0, description="images for model selection")
    test: int = Field(default=1000, ge=0, description="images to test on")
    distilled: str = Field(
        default="none", description="none, oracle (the truth), or an output file of `ecamp distill`"
    )


class PhantomDataset(Dataset[PhantomConfig]):
    """Films rendered on demand, with the same pixels on any machine."""

    summary = "procedural chest radiographs: labels, masks, boxes and reports, no download"
    licence = "Apache-2.0"
    citation = "this project, docs/phantom.md"

    @property
    def _population(self) -> dict[str, int]:
        """Options that determine films and reports; distilled statements do not."""
        return dict(self.config.model_dump(exclude={"distilled"}))

    @cached_property
    def _distilled(self) -> Callable[[str, Description], str | None]:
        """Function (record id, study) -> distilled text."""
        if self.config.distilled == "none":
            return lambda _, __: None
        if self.config.distilled == "oracle":
            return lambda _, study: oracle_text(study)
        texts = read_distilled(Path(self.config.distilled).expanduser())
        return lambda name, _: texts.get(name) or None

    @property
    def info(self) -> DatasetInfo:
        return DatasetInfo(
            name="phantom",
            version=f"{GENERATOR_VERSION}-{identity(self._population)[:6]}",
            labels=FINDINGS,
            label_kind="multilabel",
            mask_classes=FINDINGS,
            box_classes=FINDINGS,
            has_reports=True,
            mean=(0.42,),
            std=(0.27,),
        )

    def records(self) -> Sequence[Record]:
        records = []
        start = 0
        for split in ("test", "val", "train", "pretrain"):
            count = getattr(self.config, split)
            for index in range(start, start + count):
                study = describe_study(self.config.seed, index)
                name = f"phantom-{index:06d}"
                records.append(
                    Record(
                        id=name,
                        patient=study.patient,
                        split=split,
                        row=f"study {index}",
                        labels=study.labels,
                        report=study.report,
                        distilled=self._distilled(name, study),
                        has_mask=True,
                        has_boxes=True,
                        payload=index,
                    )
                )
            start += -(-count // BLOCK) * BLOCK
        return records

    def load(self, record: Record, size: int) -> Sample:
        study = render_study(self.config.seed, record.payload, size)
        return Sample(study.image[..., None], study.masks, study.boxes, study.box_classes)

    def fingerprint(self) -> str:
        parts = ["phantom", GENERATOR_VERSION, self._population]
        source = self.config.distilled
        if source == "oracle":
            parts.append(source)
        elif source != "none":
            parts.append(content_hash(Path(source).expanduser()))
        return identity(parts)
