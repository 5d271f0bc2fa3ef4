"""Encoders: the feature contract that every encoder meets and every head builds on."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from ecamp.api.plugin import ConfigT, Plugin
from ecamp.errors import UsageError

FITS = ("pad", "stretch", "crop")


@dataclass(frozen=True)
class InputSpec:
    """Input that an encoder's weights expect; whatever is None is that of the data set.

    Attributes:
        mean, std: Of pixels scaled to 0..1, one for all channels or one per channel of `channels`.
        channels: Any number; a grey channel is repeated, three colours are weighed to one grey.
        fit: How an image becomes a square: `pad` (black borders), `stretch` (proportions are lost)
            or `crop` (the middle square; masks, boxes and points are cut too).

    Raises:
        UsageError: Values that contradict each other.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: int | None = None
    fit: str = "pad"

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.mean, self.std) if values is not None}
        problem = None
        if self.channels is not None and self.channels < 1:
            problem = f"channels is {self.channels}, not at least 1"
        elif (self.mean is None) != (self.std is None):
            problem = "mean and std are given together or not at all"
        elif not lengths <= {1, self.channels} or len(lengths) > 1:
            problem = "mean and std have one value, or one per channel that `channels` names"
        elif self.mean and not all(0 <= value <= 1 for value in self.mean):
            problem = f"mean is {self.mean}; pixels are scaled to 0..1"
        elif self.std and not all(0 < value <= 1 for value in self.std):
            problem = f"std is {self.std}; pixels are scaled to 0..1"
        elif self.fit not in FITS:
            problem = f"fit is '{self.fit}', not {', '.join(FITS)}"
        if problem:
            raise UsageError(f"InputSpec: {problem}.")

    def as_json(self) -> dict[str, Any]:
        """Return the plain form for identities and files of weights."""
        return asdict(self)


AS_STORED = InputSpec()  # states nothing


@dataclass(frozen=True)
class Features:
    """Features of a batch of images.

    Attributes:
        pooled: (batch, width) one vector per image.
        tokens: (batch, rows*columns, width) one vector per patch, row by row.
        grid: (rows, columns) of `tokens`.
        pyramid: Feature maps (batch, width_i, rows_i, columns_i), fine to coarse. A ViT gives maps
            of several depths at one resolution, a CNN gives maps of falling resolution.
    """

    pooled: Tensor
    tokens: Tensor
    grid: tuple[int, int]
    pyramid: tuple[Tensor, ...]


class Encoder(nn.Module):
    """Image encoder: float images (batch, channels, size, size), normalised, -> `Features`.

    Attributes:
        image_size: Side of the input in pixels.
        channels: Input channels.
        width: Length of `pooled` and of a token.
        pretrained: Whether the weights were loaded or trained before, so that an objective must
            not initialise them again.
    """

    pretrained: bool = False
    image_size: int
    channels: int
    width: int

    def forward(self, images: Tensor) -> Features:
        """Encode whole images."""
        raise NotImplementedError

    def layers(self) -> list[tuple[str, ...]]:
        """List prefixes of parameter names, one tuple per layer, input to output.

        Layer-wise learning-rate decay uses them; empty (as here) means one rate for all.
        """
        return []


class PatchEncoder(Encoder):
    """An encoder that can also encode a chosen subset of its patches (capability `visible`).

    Attributes:
        patch_size: Side of a patch in pixels.
        grid: Patches per side (rows, columns).
    """

    patch_size: int
    grid: tuple[int, int]

    def encode_visible(self, images: Tensor, keep: Tensor) -> Tensor:
        """Encode only the named patches.

        Args:
            images: (batch, channels, size, size).
            keep: int64 (batch, kept) patch indices, row by row.

        Returns:
            (batch, 1 + kept, width): the class token, then the kept patches in the order of `keep`.
        """
        raise NotImplementedError


class DualEncoder(Encoder):
    """An encoder with a text side in one space with its images (capability `text`).

    Zero-shot classification and retrieval need it. Both compare directions, so the lengths of
    embeddings do not matter.

    Attributes:
        logit_scale: Factor of a cosine before the softmax, as the encoder was trained.
    """

    logit_scale: float = 100.0

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences or reports; text beyond the text side's length is cut.

        The embedding of a text does not depend on the other texts of the call (checked by
        `ecamp.testing.contract`).

        Returns:
            float32 (n, joint width).
        """
        raise NotImplementedError

    def embed_image(self, features: Features) -> Tensor:
        """Project features into the joint space, from `pooled` alone (tokens are not cached).

        Returns:
            float32 (batch, joint width).
        """
        raise NotImplementedError


class EncoderPlugin(Plugin[ConfigT]):
    """Builder of an image encoder.

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

    @property
    def input_spec(self) -> InputSpec:
        """Input that the weights expect; as here, all as the data set has it, with black borders."""
        return AS_STORED

    @property
    def identity(self) -> list[Any]:
        """Its code, variant and options, and the input where it differs from the data set's."""
        expected = self.input_spec
        return [*super().identity, *([expected.as_json()] if expected != AS_STORED else [])]

    @abstractmethod
    def build(self, channels: int) -> Encoder:
        """Build the module with fresh weights, drawn from torch's current seed.

        Args:
            channels: Of the images: those of `input_spec` where it names them.
        """
