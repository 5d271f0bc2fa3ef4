"""What a plugin is: the base classes of each group. Imports neither torch nor numpy.

A plugin is a class with a pydantic `Config` (unknown keys refused), a one-line `summary`, a
`licence`, a `citation`, and the methods of its protocol. It is found through an entry point; our
own plugins use the same entry points as a stranger's package.

| group            | base class      | turns                                                    |
| ---------------- | --------------- | -------------------------------------------------------- |
| ecamp.encoders   | EncoderPlugin   | a config into a torch module, image -> features          |
| ecamp.pretext    | PretextPlugin   | an encoder into a training objective on image-report pairs |
| ecamp.datasets   | Dataset         | an on-disk (or procedural) layout into records and samples |
| ecamp.tasks      | TaskPlugin      | features and targets into predictions and scores         |
| ecamp.distillers | Distiller       | reports into entity-centred statements                   |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np

    from ecamp.encoders.base import Encoder
    from ecamp.pretext.base import Objective, PretextContext
    from ecamp.tasks.base import Predictor, TaskSplit
    from ecamp.text.distill.statements import Distilled, Report

GROUPS = (
    "ecamp.encoders", "ecamp.pretext", "ecamp.datasets", "ecamp.tasks", "ecamp.distillers",
)  # fmt: skip


class PluginConfig(BaseModel):
    """Base of every plugin's `Config`: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Plugin(ABC):  # noqa: B024 - its kinds have the abstract methods
    """Common part of all plugins.

    Args:
        config: An instance of the class's `Config`.
        variant: What stood behind the slash of the name (`timm/resnet18` -> `resnet18`), for a
            family of plugins; `None` for a plain name.
    """

    summary: ClassVar[str] = ""
    licence: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    family: ClassVar[bool] = False  # True: the name needs a variant behind a slash
    Config: ClassVar[type[PluginConfig]] = PluginConfig

    def __init__(self, config: Any, variant: str | None = None) -> None:
        self.config = config
        self.variant = variant

    @classmethod
    def variants(cls) -> Sequence[str]:
        """Names that may stand behind the slash; empty when this is no family."""
        return ()

    def decisive(self) -> dict[str, Any]:
        """What decides this plugin's results: its config, and the content of files that it names.

        Identities of pre-trainings are hashed from it.
        """
        return dict(self.config.model_dump())


# --- datasets -----------------------------------------------------------------------------------

SPLITS = ("pretrain", "train", "val", "test")


@dataclass(frozen=True)
class DatasetInfo:
    """What the samples of a data set hold.

    Attributes:
        name, version: Together they name the protocol of its splits, `name/version`.
        labels: Class names of the image labels; empty without labels.
        label_kind: `multilabel` (K independent 0/1), `multiclass` (exactly one of K).
        mask_classes: Names of the mask channels; empty without masks.
        box_classes: Names of the box classes; empty without boxes.
        has_reports: Whether records carry report text.
        colour: `grey` or `rgb`.
        mean, std: Per-channel normalisation of pixels scaled to 0..1.
        flaws: What is known to be wrong with this protocol's splits, a sentence each; every result
            on it carries them as warnings.
        leaks: The published splits share patients or images, and `flaws` says so: read them all the
            same. Without it a patient in two splits is refused.
    """

    name: str
    version: str
    labels: tuple[str, ...] = ()
    label_kind: str = "multilabel"
    mask_classes: tuple[str, ...] = ()
    box_classes: tuple[str, ...] = ()
    has_reports: bool = False
    colour: str = "grey"
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    flaws: tuple[str, ...] = ()
    leaks: bool = False

    @property
    def protocol(self) -> str:
        """Name of the split protocol that stands in every result row."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True)
class Record:
    """One image as the table knows it; no pixels.

    Attributes:
        id: Unique within the data set.
        patient: All images of one person share it; splits and resampling go by it.
        split: One of `SPLITS`.
        row: Where it stands in its source (`manifest.csv row 17`), for messages.
        labels: K values (0, 1, or None = unknown); a multiclass label is one-hot. None = no labels.
        report: Report text or None.
        distilled: Entity-centred statements drawn from the report ("There is X. There is no Y."),
            or None.
        has_mask, has_boxes: Whether truth of that kind is known for this image (an image known to
            hold no finding has boxes: an empty list of them).
        payload: What the data set needs to load it; opaque to everybody else.
    """

    id: str
    patient: str
    split: str
    row: str = ""
    labels: tuple[int | None, ...] | None = None
    report: str | None = None
    distilled: str | None = None
    has_mask: bool = False
    has_boxes: bool = False
    payload: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Sample:
    """One image with its truths, at the size it is stored in.

    Attributes:
        image: uint8 (height, width, channels), channels 1 or 3.
        mask: bool (mask classes, height, width) or None.
        boxes: float32 (n, 4) x1, y1, x2, y2 in pixels of `image`, or None when not known.
        box_classes: int64 (n,) or None.
    """

    image: np.ndarray
    mask: np.ndarray | None = None
    boxes: np.ndarray | None = None
    box_classes: np.ndarray | None = None


class Dataset(Plugin):
    """Images with reports, labels, masks or boxes, and patient-level splits.

    `layout` says how to get the data and what the folder must hold; `ecamp data info NAME` prints it.
    """

    layout: ClassVar[str] = ""

    @classmethod
    def guide(cls) -> str:
        """What a user reads who has no data yet."""
        return cls.layout

    @property
    @abstractmethod
    def info(self) -> DatasetInfo:
        """Names and kinds of the truths."""

    @abstractmethod
    def records(self) -> Sequence[Record]:
        """All images, in a fixed order. Cheap: reads tables, no pixels."""

    @abstractmethod
    def load(self, record: Record, size: int) -> Sample:
        """Read one image with its truths.

        Args:
            record: One of `records()`.
            size: The side in pixels that the caller will resize to; a procedural data set
                renders at this size, a data set on disk may ignore it.

        Raises:
            DataError: Names the file and row.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides records and pixels; equal content, equal hash."""


# --- encoders -----------------------------------------------------------------------------------


class EncoderPlugin(Plugin):
    """Builds an image encoder.

    `provides` lists capabilities beyond plain features: `visible` = can encode a chosen subset of
    patches (needed by masked image modelling), `text` = has a text side in one space with its
    images (needed by zero-shot protocols).
    """

    @property
    def provides(self) -> frozenset[str]:
        """Capabilities of this variant, known without building it."""
        return frozenset()

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side of the square input in pixels."""

    @abstractmethod
    def build(self, channels: int) -> Encoder:
        """Make the module with fresh weights, drawn from torch's current seed."""


# --- pretext tasks ------------------------------------------------------------------------------


class PretextPlugin(Plugin):
    """A training objective that pre-trains an encoder.

    `needs` are Sample/Record fields (`image`, `report`), `requires` encoder capabilities; pairs
    that cannot work are refused while planning, with the missing field named.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"image"})
    requires: ClassVar[frozenset[str]] = frozenset()

    def weights_file(self) -> Path | None:
        """A file that holds the weights already; None (as here) when they are to be trained."""
        return None

    @abstractmethod
    def build(self, encoder: Encoder, context: PretextContext) -> Objective:
        """Wrap the encoder into the module whose loss is minimised."""


# --- tasks --------------------------------------------------------------------------------------

FEATURES = frozenset({"pooled", "pyramid"})  # kinds of frozen features


class TaskPlugin(Plugin):
    """Head, loss, prediction and score for one kind of truth.

    A task is fitted on train and validation only; it predicts from test inputs without their
    targets, so a head cannot peek. Scoring happens outside, on stored predictions.

    `reads` says which frozen features the heads look at, of `FEATURES`; a pyramid that no task of a
    bench reads is neither kept nor stored.
    """

    needs: ClassVar[str] = "labels"  # labels | mask | boxes | report
    primary: ClassVar[str] = ""
    protocols: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[frozenset[str]] = FEATURES
    # Protocol -> encoder capability without which it is left out. Such a protocol learns nothing:
    # it gets the encoder beside its cached features, and stands once, not at every label share.
    requires: ClassVar[Mapping[str, str]] = {}
    # Protocols under which the encoder trains: it is given, and no feature is cached.
    tunes: ClassVar[frozenset[str]] = frozenset({"finetune"})

    @abstractmethod
    def fit(
        self, encoder: Encoder | None, train: TaskSplit, val: TaskSplit, *, protocol: str, seed: int
    ) -> Predictor:
        """Train a head (and the encoder, under what `tunes` names); choose on `val` only.

        `encoder` is None where the features are frozen and the protocol requires no more of it.
        """

    @abstractmethod
    def targets(self, split: Any) -> dict[str, np.ndarray]:
        """The truth arrays of a split, as stored beside the predictions."""

    @abstractmethod
    def score(
        self, predictions: dict[str, np.ndarray], targets: dict[str, np.ndarray], replicates: Any
    ) -> Any:
        """Metrics with bootstrap replicates; a function of stored arrays alone."""


# --- distillers ---------------------------------------------------------------------------------


class Distiller(Plugin):
    """Turns reports into entity-centred statements (METHOD section 1).

    What it says of a report depends on that report alone, not on its neighbours or their order.
    """

    @abstractmethod
    def distill(self, reports: Iterable[Report]) -> Iterator[Distilled]:
        """One result a report, in the order of the reports.

        Streams: a bounded number of reports is held, so that a million of them fit. A report that
        cannot be distilled gives a result with `error`; the rest goes on.
        """

    def counts(self) -> Mapping[str, int]:
        """For the summary: requests, retries, cached answers, tokens ...; empty as here."""
        return {}
