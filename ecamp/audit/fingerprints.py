"""Fingerprints of images: a hash of the pixels, a perceptual hash, a thumbnail.

Each image is read once and its fingerprint appended to a file, so that an audit of a large set resumes.

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
from ecamp.io.images import as_rgb
from ecamp.progress import Progress, no_progress

THUMB = 32  # side of the thumbnail
BITS = 8  # side of the perceptual hash
BACKGROUND_MAX = 12  # largest grey value of a thumbnail that counts as dark frame
CROP_RETRY_MIN = 0.85  # similarity from which the comparison is repeated with crops
MARGINS = (0.25, 0.5)  # pixels of a thumbnail that a crop may remove at each side
CROSS = ndimage.generate_binary_structure(2, 1)[None]  # neighbours within one thumbnail


@dataclass(frozen=True)
class Fingerprint:
    """Fingerprint of one image.

    Attributes:
        pixels: SHA-256 of size and pixels, 16 hex digits.
        width, height: As stored.
        perceptual: 64 bits of the lowest frequencies (pHash), equal for the same film at another
            size or compression.
        thumb: uint8 (32, 32).
        constant: Whether all pixels are equal.
        boxes_twice: Number of duplicate boxes.
    """

    pixels: str
    width: int
    height: int
    perceptual: int
    thumb: np.ndarray
    constant: bool
    boxes_twice: int = 0


def fingerprint(image: np.ndarray) -> Fingerprint:
    """Compute the fingerprint of a uint8 image (height, width) or (height, width, channels)."""
    grey = image if image.ndim == 2 else image[..., 0] if image.shape[2] == 1 else _grey(image)
    height, width = grey.shape
    digest = hashlib.sha256(f"{width}x{height}".encode())
    digest.update(np.ascontiguousarray(image).data)
    small = Image.fromarray(np.ascontiguousarray(grey)).resize((THUMB, THUMB), Image.Resampling.BOX)
    thumb = np.asarray(small)
    frequencies = fft.dctn(thumb.astype(np.float32), norm="ortho")[:BITS, :BITS].ravel()
    above = frequencies > np.median(frequencies[1:])
    above[0] = False  # the mean brightness carries no information
    bits = int.from_bytes(np.packbits(above).tobytes(), "big")
    return Fingerprint(
        digest.hexdigest()[:16], width, height, bits, thumb, bool(grey.min() == grey.max())
    )


def _grey(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(np.ascontiguousarray(as_rgb(image))).convert("L"))


def near_duplicates(
    prints: Sequence[Fingerprint], bits: int = 6, similarity: float = 0.96
) -> Iterator[tuple[int, int]]:
    """Find pairs that show the same film: hashes differ in few bits and thumbnails agree.

    Two hashes that differ in at most `bits` bits agree in one of `bits + 1` parts, so only images
    with an equal part are compared. Films of one type resemble each other, photographs of the eye with the
    same frame most of all, so a pair proposed by the hash must be confirmed by the thumbnails' detail.

    Args:
        bits: Largest number of bits in which hashes may differ.
        similarity: Smallest correlation of the thumbnails' detail.

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
                new = [n for n, pair in enumerate(pairs) if pair not in seen]
                if not new:
                    continue
                seen.update(pairs)
                thumbs = np.stack([prints[int(near[n])].thumb for n in new])
                scores = _similarity(prints[i].thumb, thumbs)
                for n, thumb, score in zip(new, thumbs, scores, strict=True):
                    if score >= similarity or (
                        score >= CROP_RETRY_MIN
                        and _similarity_after_crop(prints[i].thumb, thumb) >= similarity
                    ):
                        yield pairs[n]


def _similarity(thumb: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Correlate the detail of a thumbnail with that of (n, 32, 32) others, inside both frames.

    Detail is the difference from a blurred image, and dark frames are excluded: neither brightness,
    nor a round field of view, nor the border of a letterbox makes two images similar.

    Returns:
        float (n,); 0 if one of the two is flat.
    """
    visible = _visible(thumb[None]) & _visible(others)
    visible[visible.sum((1, 2)) < visible[0].size // 16] = True  # dark images: use all pixels
    count = visible.sum((1, 2), keepdims=True)
    x, y = _detail(thumb[None]) * visible, _detail(others) * visible
    x, y = (v - visible * (v.sum((1, 2), keepdims=True) / count) for v in (x, y))
    scale = np.sqrt((x * x).sum((1, 2)) * (y * y).sum((1, 2)))
    return np.asarray((x * y).sum((1, 2)) / np.where(scale > 0, scale, np.inf))


def _similarity_after_crop(a: np.ndarray, b: np.ndarray) -> float:
    """Return the highest correlation after cropping either thumbnail slightly, as archives do."""
    best = 0.0
    for margin in MARGINS:
        box = (margin, margin, THUMB - margin, THUMB - margin)
        for cropped, other in ((a, b), (b, a)):
            image = Image.fromarray(cropped).resize(
                (THUMB, THUMB), Image.Resampling.BICUBIC, box=box
            )
            best = max(best, float(_similarity(other, np.asarray(image)[None])[0]))
    return best


def _visible(thumbs: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.binary_erosion(thumbs > BACKGROUND_MAX, CROSS))


def _detail(thumbs: np.ndarray) -> np.ndarray:
    """Subtract a blurred image; the dark frame does not enter the blur."""
    lit = (thumbs > BACKGROUND_MAX).astype(np.float64)
    values = thumbs * lit
    blurred, weight = (ndimage.gaussian_filter(v, (0, 1.5, 1.5)) for v in (values, lit))
    return np.asarray(values - lit * blurred / np.where(weight > 0, weight, 1.0))


class FingerprintStore:
    """Fingerprints on disk by key, one per line, so that an interrupted audit resumes.

    Args:
        path: File of JSON lines; None keeps them in memory only.
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
            except (ValueError, KeyError, TypeError):  # a line that an interruption cut off
                continue

    def compute(
        self, keys: Sequence[str], read: Callable[[int], Fingerprint],
        progress: Progress = no_progress,
    ) -> list[Fingerprint | str]:  # fmt: skip
        """Compute the fingerprints of many images; those in the store are not read again.

        Args:
            keys: Key of each image (path, size and time; or id).
            read: Index -> its fingerprint; raises `EcampError` for a bad image.
            progress: Receives images as they are read.

        Returns:
            One per image: its fingerprint, or the error message if it cannot be read.
        """
        results: list[Fingerprint | str] = []
        with contextlib.ExitStack() as stack:
            file = None
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(self.path.open("a", encoding="utf-8"))
            for i, key in enumerate(keys):
                progress(i, len(keys), "images")
                if key not in self.known:
                    try:
                        self.known[key] = read(i)
                    except EcampError as error:
                        results.append(error.message)
                        continue
                    if file is not None:
                        row = asdict(self.known[key])
                        row["thumb"] = row["thumb"].tobytes().hex()
                        file.write(json.dumps({"key": key, **row}) + "\n")
                results.append(self.known[key])
            progress(len(keys), len(keys), "images")
        return results
