"""The image side of the data path: from stored images to normalised 448 crops and 224 inputs.

    pytest benchmarks/bench_images.py

Published (ToniChopp/ECAMP, `pretrain_datasets.py`): each epoch decodes the file, crops and resizes
with Pillow, flips, makes a tensor, normalises, resizes once more. Ours: decoded once into 8-bit
arrays, then one resampling per batch. One thread. Ours computes bilinear where Pillow's bicubic
filters: not the same pixels.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmarks.harness import measure
from ecamp.datasets.phantom.study import render_study
from ecamp.ops.crop_resize import crop_resize
from ecamp.pretext.images import crop_and_flip

BATCH, STORED, LARGE = 16, 512, 448
MEAN, STD = 0.4721, 0.3037


def test_images(benchmark: BenchmarkFixture) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stored = np.stack([render_study(0, i, STORED).image for i in range(BATCH)])
    films = [Image.fromarray(image) for image in stored]
    files = []
    for film in films:
        file = io.BytesIO()
        film.save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    pillow = v2.Compose([
        v2.RandomResizedCrop(LARGE, (0.2, 1.0), interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([MEAN], [STD]),
    ])  # fmt: skip
    tensors = v2.Compose([
        v2.RandomResizedCrop(LARGE, (0.2, 1.0), antialias=True),
        v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([MEAN], [STD]),
    ])  # fmt: skip
    pixels = torch.from_numpy(stored).unsqueeze(1)

    def small(large: Tensor) -> Tensor:
        result: Tensor = v2.functional.resize(large, [LARGE // 2], v2.InterpolationMode.BICUBIC)
        return result

    def published() -> list[tuple[Tensor, Tensor]]:
        large_images = [pillow(Image.open(io.BytesIO(file)).convert("L")) for file in files]
        return [(large, small(large)) for large in large_images]

    def without_decoding() -> list[tuple[Tensor, Tensor]]:
        large_images = [pillow(film) for film in films]
        return [(large, small(large)) for large in large_images]

    def on_tensors() -> tuple[Tensor, Tensor]:
        large = torch.stack([tensors(image) for image in pixels])
        return large, small(large)

    generator = torch.Generator().manual_seed(0)

    images = torch.from_numpy(stored).unsqueeze(3)

    def draw() -> tuple[Tensor, Tensor]:
        low = torch.rand(BATCH, 2, generator=generator) * 0.4
        return torch.cat([low, low + 0.6], 1), torch.rand(BATCH, generator=generator) < 0.5

    def ours() -> tuple[Tensor, Tensor]:
        return crop_resize(images, *draw(), [MEAN], [STD], LARGE, 2)

    def sampler() -> tuple[Tensor, Tensor]:
        crop, flip = draw()
        large = crop_and_flip((pixels.float() / 255 - MEAN) / STD, crop, flip, LARGE)
        return large, nn.functional.avg_pool2d(large, 2)

    compiled = torch.compile(sampler)

    try:
        measure(
            f"image side, {BATCH} images of {STORED}",
            ours,
            {
                "published, decoding": published,
                "published, decoded": without_decoding,
                "torchvision on tensors": on_tensors,
                "grid sampler": sampler,
                "grid sampler, compiled": compiled,
            },
            benchmark=benchmark,
        )
    finally:
        torch.set_num_threads(threads)
