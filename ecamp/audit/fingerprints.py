"""What an audit keeps of an image: its pixels' hash, a perceptual hash, a thumbnail, its border.

Read once and appended to a file, so that an audit of a large set resumes where it stopped.

Why: docs/decisions.md#near-copies-need-hash-and-thumbnail, #fingerprints-hold-sizes-of-images.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from ecamp.errors import EcampError

THUMB = 32  # side of the thumbnail
BITS = 8  # side of the perceptual hash
BACKGROUND_MAX = 12  # grey up to which a pixel of a thumbnail is frame
CROP_RETRY_MIN = 0.85  # similarity from which a crop is tried
MARGINS = (0.25, 0.5)  # pixels of a thumbnail that a crop may have lost at each side
CROSS = ndimage.generate_binary_structure(2, 1)[None]  # neighbours within one thumbnail


@dataclass(frozen=True)
class Fingerprint:
    """One image.

    Attributes:
        pixels: SHA-256 of size and pixels, 16 hex digits. width, height: As stored.
        perceptual: 64 bits of the lowest frequencies (pHash), equal for the same film at another
            size or compression.
        thumb: uint8 (32, 32). constant: All pixels are equal.
        boxes_twice: Boxes that stand on it a second time.
    """

    pixels: str
    width: int
    height: int
    perceptual: int
    thumb: np.ndarray
    constant: bool
    boxes_twice: int = 0


def fingerprint(image: np.ndarray) -> Fingerprint:
    """Of a uint8 image (height, width) or (height, width, channels)."""
    grey = image if image.ndim == 2 else image[..., 0] if image.shape[2] == 1 else _grey(image)
    height, width = grey.shape
    digest = hashlib.sha256(f"{width}x{height}".encode())
    digest.update(np.ascontiguousarray(image).data)
    small = Image.fromarray(np.ascontiguousarray(grey)).resize((THUMB, THUMB), Image.Resampling.BOX)
    thumb = np.asarray(small)
    low = fft.dctn(thumb.astype(np.float32), norm="ortho")[:BITS, :BITS].ravel()
    above = low > np.median(low[1:])
    above[0] = False  # the mean brightness says nothing
    bits = int.from_bytes(np.packbits(above).tobytes(), "big")
    return Fingerprint(
        digest.hexdigest()[:16], width, height, bits, thumb, bool(grey.min() == grey.max())
    )


def _grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(image[..., :3])).convert("L"))


def near_duplicates(
    prints: Sequence[Fingerprint], bits: int = 6, similarity: float = 0.96
) -> Iterator[tuple[int, int]]:
    """Pairs that show the same film: hashes differ in few bits and thumbnails agree.

    Two hashes that differ in at most `bits` bits agree in one of `bits + 1` parts, so only images
    with an equal part are compared. Films of one kind resemble each other, photographs of the eye in one
    frame above all: what the hash proposes, the correlation of the thumbnails' detail must confirm.

    Yields:
        (i, j), i < j, each pair once.
    """
    hashes = np.array([p.perceptual for p in prints], np.uint64)
    edges = np.linspace(0, 64, bits + 2).round().astype(int)
    seen: set[tuple[int, int]] = set()
    for low, high in itertools.pairwise(edges):
        part = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(part, kind="stable")
        bounds = np.flatnonzero(np.r_[True, np.diff(part[order]) != 0, True])
        for start, end in itertools.pairwise(bounds):
            group = order[start:end]
            for k, i in enumerate(group[:-1]):
                others = group[k + 1 :]
                near = others[np.bitwise_count(hashes[others] ^ hashes[i]) <= bits]
                pairs = [(int(min(i, j)), int(max(i, j))) for j in near]
                at = [n for n, pair in enumerate(pairs) if pair not in seen]
                if not at:
                    continue
                seen.update(pairs)
                thumbs = np.stack([prints[int(near[n])].thumb for n in at])
                like = _alike(prints[i].thumb, thumbs)
                for n, thumb, alike in zip(at, thumbs, like, strict=True):
                    if alike >= similarity or (
                        alike >= CROP_RETRY_MIN and _cropped(prints[i].thumb, thumb) >= similarity
                    ):
                        yield pairs[n]


def _alike(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Correlation of the detail of a thumbnail and of (n, 32, 32) others, where both show something.

    Detail is what a blur takes away, and a dark frame shows nothing: neither brightness, nor a round
    field of view, nor the border of a letter-box makes two images alike.

    Returns:
        float (n,); 0 where one is flat.
    """
    shown = _shown(one[None]) & _shown(others)
    shown[shown.sum((1, 2)) < shown[0].size // 16] = True  # dark images: all they have
    count = shown.sum((1, 2), keepdims=True)
    x, y = _detail(one[None]) * shown, _detail(others) * shown
    x, y = (v - shown * (v.sum((1, 2), keepdims=True) / count) for v in (x, y))
    spread = np.sqrt((x * x).sum((1, 2)) * (y * y).sum((1, 2)))
    return np.asarray((x * y).sum((1, 2)) / np.where(spread > 0, spread, np.inf))


def _cropped(a: np.ndarray, b: np.ndarray) -> float:
    """The same where one of two thumbnails is first cropped a little, as archives crop films."""
    best = 0.0
    for margin in MARGINS:
        box = (margin, margin, THUMB - margin, THUMB - margin)
        for cropped, other in ((a, b), (b, a)):
            image = Image.fromarray(cropped).resize(
                (THUMB, THUMB), Image.Resampling.BICUBIC, box=box
            )
            best = max(best, float(_alike(other, np.asarray(image)[None])[0]))
    return best


def _shown(thumbs: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.binary_erosion(thumbs > BACKGROUND_MAX, CROSS))


def _detail(thumbs: np.ndarray) -> np.ndarray:
    """What a blur takes away; the blur does not mix the dark frame in."""
    lit = (thumbs > BACKGROUND_MAX).astype(np.float64)
    values = thumbs * lit
    blurred, weight = (ndimage.gaussian_filter(v, (0, 1.5, 1.5)) for v in (values, lit))
    return np.asarray(values - lit * blurred / np.where(weight > 0, weight, 1.0))


class PrintStore:
    """Fingerprints on disk by key, a line each, so that an interrupted audit goes on.

    Args:
        path: JSON lines; None keeps them in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known: dict[str, Fingerprint] = {}
        if path is None or not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                value = json.loads(line)
                thumb = np.frombuffer(bytes.fromhex(value.pop("thumb")), np.uint8)
                key = value.pop("key")
                self.known[key] = Fingerprint(thumb=thumb.reshape(THUMB, THUMB), **value)
            except (ValueError, KeyError, TypeError):  # a line that a kill cut short
                continue

    def of(
        self, keys: Sequence[str], read: Callable[[int], Fingerprint],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Fingerprint | str]:  # fmt: skip
        """Fingerprints of many images; those known are not read again.

        Args:
            keys: What an image is known by (path, size and time; or id).
            read: Index -> its fingerprint; raises `EcampError` for a bad image.

        Returns:
            One an image; the message of the error where it cannot be read.
        """
        out: list[Fingerprint | str] = []
        with contextlib.ExitStack() as stack:
            file = None
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(self.path.open("a", encoding="utf-8"))
            for i, key in enumerate(keys):
                if key not in self.known:
                    try:
                        self.known[key] = read(i)
                    except EcampError as error:
                        out.append(error.message)
                        continue
                    if file is not None:
                        row = asdict(self.known[key])
                        row["thumb"] = row["thumb"].tobytes().hex()
                        file.write(json.dumps({"key": key, **row}) + "\n")
                out.append(self.known[key])
                if (i + 1) % 200 == 0:
                    progress(i + 1, len(keys))
        return out
