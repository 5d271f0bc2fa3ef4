"""Data sets: images with reports, labels, masks or boxes. Imports neither torch nor numpy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ecamp.api.plugin import ConfigT, Plugin

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("pretrain", "train", "val", "test")
USUAL_TRUTHS = ("labels", "mask", "boxes", "report")


@dataclass(frozen=True)
class Truth:
    """A truth of a data set's own, which tasks ask for by name (`TaskPlugin.needs`).

    Attributes:
        name: Its name; not one of `USUAL_TRUTHS`.
        kind: `number`; `vector`, always `length` numbers; `text`; `points`, any number of (x, y) in
            pixels of the image.
        length: Numbers of a vector.
        unit: Unit, for people: `years`.

    Raises:
        ValueError: A usual name, or a length that does not fit the kind.
    """

    name: str
    kind: Literal["number", "vector", "text", "points"]
    length: int = 0
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.name or self.name in USUAL_TRUTHS:
            raise ValueError(f"truth '{self.name}': choose another name; that one is taken")
        if (self.kind == "vector") != (self.length > 0):
            raise ValueError(f"truth '{self.name}': a vector, and only a vector, has a length")


@dataclass(frozen=True)
class DatasetInfo:
    """Names and kinds of the truths of a data set.

    Attributes:
        name, version: Together the name of its splits, `name/version`.
        labels: Class names of the image labels; empty without labels.
        label_kind: `multilabel` (K independent 0/1), `multiclass` (exactly one of K).
        mask_classes: Names of the mask channels; empty without masks.
        box_classes: Names of the box classes; empty without boxes.
        has_reports: Whether records carry report text.
        truths: Truths beyond these: numbers, vectors, texts, points.
        channels: Channels of every image: 1 grey, 3 colour (RGB), or as many as a stack has
            (neighbouring slices, contrasts, windows of one slice).
        mean, std: Per-channel normalisation of pixels scaled to 0..1.
        flaws: Known defects of these splits, one sentence each; every result on them carries them
            as warnings.
        leaks: The published splits share patients or images, as `flaws` says, and are read all the
            same. Without it, a patient in two splits is refused.
    """

    name: str
    version: str
    labels: tuple[str, ...] = ()
    label_kind: str = "multilabel"
    mask_classes: tuple[str, ...] = ()
    box_classes: tuple[str, ...] = ()
    has_reports: bool = False
    truths: tuple[Truth, ...] = ()
    channels: int = 1
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    flaws: tuple[str, ...] = ()
    leaks: bool = False

    @property
    def split_id(self) -> str:
        """Name of the splits, as every result row shows it."""
        return f"{self.name}/{self.version}"

    def has(self, need: str) -> bool:
        """Tell whether the data set has a truth.

        Args:
            need: One of `USUAL_TRUTHS`, or the name of a truth of the data set's own.
        """
        return need in self.known_truths

    @property
    def known_truths(self) -> tuple[str, ...]:
        """Names of all truths of the data set, the usual ones first."""
        present = (self.labels, self.mask_classes, self.box_classes, self.has_reports)
        usual = [name for name, there in zip(USUAL_TRUTHS, present, strict=True) if there]
        return (*usual, *(truth.name for truth in self.truths))


@dataclass(frozen=True)
class Record:
    """One image as its table describes it, without pixels.

    Attributes:
        id: Unique within the data set.
        patient: Shared by all images of one person; splits and resampling are by patient.
        split: One of `SPLITS`.
        row: Its location in the source (`manifest.csv row 17`), for messages.
        labels: K values (0, 1, or None = unknown); a multiclass label is one-hot. None = no labels.
        report: Report text or None.
        distilled: Entity-centred statements drawn from the report ("There is X. There is no Y."),
            or None.
        has_mask, has_boxes: Whether truth of that kind is known for this image (an image known to
            contain no finding has boxes: an empty list of them).
        truths: Values of the data set's own truths by name: a number, a sequence of numbers, a text;
            None or absent = unknown. Points come with the sample.
        payload: Data for the data set's own `load`; opaque to all other code.
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
    truths: Mapping[str, Any] = field(default_factory=dict)
    payload: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Sample:
    """One image with its truths, at the size it is stored in.

    Attributes:
        image: uint8 (height, width, channels), channels as in `DatasetInfo`.
        mask: bool (mask classes, height, width) or None.
        boxes: float32 (n, 4) x1, y1, x2, y2 in pixels of `image`, or None when not known.
        box_classes: int64 (n,) or None.
        points: Truths of kind `points` by name: float32 (k, 2) x, y in pixels of `image`; absent =
            unknown.
    """

    image: np.ndarray
    mask: np.ndarray | None = None
    boxes: np.ndarray | None = None
    box_classes: np.ndarray | None = None
    points: Mapping[str, np.ndarray] = field(default_factory=dict)


class Dataset(Plugin[ConfigT]):
    """Images with reports, labels, masks or boxes, and patient-level splits.

    `layout` says how to get the data and what the folder must contain; `ecamp data info NAME`
    prints it.
    """

    layout: ClassVar[str] = ""

    @classmethod
    def help_text(cls) -> str:
        """Return what a user reads who has no data yet."""
        return cls.layout

    @property
    @abstractmethod
    def info(self) -> DatasetInfo:
        """Names and kinds of the truths."""

    @abstractmethod
    def records(self) -> Sequence[Record]:
        """List all images in a fixed order. Cheap: reads tables, no pixels."""

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
        """Hash everything that determines records and pixels: equal content, equal hash."""

    @property
    def identity(self) -> list[Any]:
        """The code that reads, and the hash of what is read."""
        return [self.origin.as_identity(), self.fingerprint()]
