"""The card of a file of weights that ecamp wrote: which encoder its tensors belong to.

It is stored in the file itself, as one JSON text in the metadata of safetensors: the order of several
entries is not fixed, and equal weights must give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ecamp.api.dataset import DatasetInfo
from ecamp.api.encoder import EncoderPlugin
from ecamp.encoders.checkpoint_file import is_safetensors
from ecamp.errors import DataError, UsageError

KEY = "ecamp"
FORMAT = 1


@dataclass(frozen=True)
class WeightsCard:
    """Description of the weights in a file.

    Attributes:
        encoder: The encoder as the user named it, options included.
        variant, options: What determines the encoder (`EncoderPlugin.identity_fields`).
        plugin: Where the encoder comes from (`Origin`): group, name, dist, version, code.
        image_size, channels: Of its input.
        expected: What the encoder states of its input (`InputSpec`).
        normalisation: Mean and std of each data set that it was trained on, as they were applied.
        pretext: Label of the pre-training.
        adds: Capabilities that the pretext task added to the encoder (`text`).
        extra: What the pretext task needs to make that encoder again (`PretextPlugin.rebuild`).
        format: Of this card.
    """

    encoder: str
    variant: str | None
    options: dict[str, Any]
    plugin: dict[str, str]
    image_size: int
    channels: int
    expected: dict[str, Any]
    normalisation: list[dict[str, Any]]
    pretext: str
    adds: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def as_metadata(self) -> dict[str, str]:
        """Return the metadata of a safetensors file."""
        return {KEY: json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, default=str)}

    @property
    def origin(self) -> str:
        """The encoder and its distribution, for messages."""
        return f"'{self.encoder}' ({self.plugin['dist']} {self.plugin['version']})"


def make_card(
    plugin: EncoderPlugin, channels: int, trained_on: Sequence[DatasetInfo], pretext: str,
    adds: Iterable[str] = (), extra: Mapping[str, Any] | None = None,
) -> WeightsCard:  # fmt: skip
    """Describe an encoder that was trained.

    Args:
        channels: Of its input.
        trained_on: The data sets as the encoder saw them (`adapt_info`).
        pretext: Label of the pre-training.
        adds, extra: As in the card; `extra` is stored only where something was added.
    """
    added = sorted(adds)
    return WeightsCard(
        str(plugin.ref),
        plugin.variant,
        _plain(plugin.identity_fields()),
        plugin.origin.as_json(),
        plugin.image_size,
        channels,
        _plain(plugin.input_spec.as_json()),
        [{"data": i.split_id, "mean": list(i.mean), "std": list(i.std)} for i in trained_on],
        pretext,
        added,
        _plain(dict(extra or {})) if added else {},
    )


def _plain(value: Any) -> Any:
    """Return what JSON makes of a value, so that what was written compares equal to what is read."""
    return json.loads(json.dumps(value, default=str))


def read_card(path: Path) -> WeightsCard | None:
    """Read the card of a file; None where ecamp did not write it.

    Raises:
        MissingError: No such file.
        DataError: Not a file of weights, damaged, or written by a newer ecamp; names it.
    """
    if not is_safetensors(path):
        return None
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged: {error}.", "Copy or download it again.") from error
    if text is None:
        return None
    try:
        fields = json.loads(text)
        if fields["format"] > FORMAT:
            raise DataError(
                f"{path}: written by a newer ecamp (format {fields['format']}, known: {FORMAT}).",
                "Upgrade: pip install -U ecamp.",
            )
        return WeightsCard(**fields)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: damaged: its metadata '{KEY}' cannot be read: {error}.",
            "Copy it again from where it was written.",
        ) from error


def describe_mismatch(path: Path, card: WeightsCard | None, plugin: EncoderPlugin) -> str | None:
    """Tell which other encoder a file's weights belong to; None where names agree.

    Options are compared when the weights are loaded.
    """
    if card is None:
        if "visible" in plugin.provides:
            return None
        return (
            f"{path} was not written by ecamp, and published layouts hold ViTs (encoders that provide "
            f"'visible'), which encoder '{plugin.ref}' is not"
        )
    if (card.plugin["dist"], card.plugin["name"], card.variant) == (
        plugin.origin.dist, plugin.origin.name, plugin.variant,
    ):  # fmt: skip
        return None
    return (
        f"{path} holds weights of encoder {card.origin}, not of '{plugin.ref}' "
        f"({plugin.origin.dist} {plugin.origin.version})"
    )


def check_encoder(path: Path, card: WeightsCard | None, plugin: EncoderPlugin) -> None:
    """Refuse a file whose weights belong to another encoder, by name.

    Raises:
        UsageError: Names both encoders.
    """
    if problem := describe_mismatch(path, card, plugin):
        own = "a file that `ecamp pretrain` wrote for this encoder"
        raise UsageError(
            f"{problem}.",
            f"Name a ViT, e.g. timm/vit_base_patch16_224, or {own}."
            if card is None
            else f"Name {own}, or encoder '{card.encoder}'. Of a ViT, `ecamp weights convert` writes "
            "a file that any encoder of its shape takes.",
        )


def list_differences(card: WeightsCard, plugin: EncoderPlugin) -> tuple[str, ...]:
    """List options, stated input and code that differ between the file's encoder and this one.

    The image size is left out: tensors that depend on it are resized, or refused by their shape.
    """
    options = _differences(card.options, _plain(plugin.identity_fields()), {"image_size"})
    stated = _differences(card.expected, _plain(plugin.input_spec.as_json()), set())
    code = _differences(card.plugin, plugin.origin.as_json(), {"group", "name", "dist"})
    return (*options, *(f"input {text}" for text in stated), *code)


def _differences(theirs: dict[str, Any], mine: dict[str, Any], ignored: set[str]) -> list[str]:
    names = sorted((theirs.keys() | mine.keys()) - ignored)
    return [
        f"{name} {json.dumps(theirs.get(name))} in the file, {json.dumps(mine.get(name))} here"
        for name in names
        if theirs.get(name) != mine.get(name)
    ]
