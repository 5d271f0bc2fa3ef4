"""Three packages of other people: a CNN, a pretext task for any encoder, a data set of colours."""

from __future__ import annotations

from pathlib import Path

from tests.plugin.packages import fake_package

ENCODER = '''
import torch
from pydantic import Field
from torch import nn

from ecamp.api import Encoder, EncoderPlugin, Features, InputSpec, PluginConfig


class Strider(Encoder):
    """A strided 1x1 convolution first; two names of one convolution; a norm with buffers."""

    def __init__(self, channels, width):
        super().__init__()
        self.image_size, self.channels, self.width = 32, channels, width
        self.first = nn.Conv2d(channels, width, 1, stride=2, bias=False)
        self.second = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.same = self.second
        self.norm = nn.BatchNorm2d(width)

    def forward(self, images):
        batch, channels, rows, columns = images.shape
        assert images.stride() == (channels * rows * columns, rows * columns, columns, 1)
        assert channels == self.channels
        maps = self.norm(self.second(self.first(images)))
        tokens = maps.flatten(2).transpose(1, 2)
        return Features(tokens.mean(1), tokens, (maps.shape[2], maps.shape[3]), (maps,))


class Config(PluginConfig):
    width: int = Field(default=8, description="channels of its maps")
    slope: float = Field(default=0.0, description="changes no tensor")
    colours: bool = Field(default=False, description="expect ImageNet's colours")
    fit: str = Field(default="pad", description="how an image becomes a square")


class Plugin(EncoderPlugin[Config]):
    summary, licence, citation = "strided", "MIT", "-"
    image_size = 32

    @property
    def input_spec(self):
        if not self.config.colours:
            return InputSpec(fit=self.config.fit)
        return InputSpec((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 3, self.config.fit)

    def build(self, channels):
        return Strider(channels, self.config.width)
'''

PRETEXT = '''
import torch
from torch import nn

from ecamp.api import Objective, PretextPlugin, Preview, ViewSpec


class Brightness(Objective):
    """Predicts the mean of an image from its pooled feature."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.out = nn.Linear(encoder.width, 1)

    def forward(self, batch):
        seen = (batch.images, *(view.images for view in batch.views))
        said = [self.out(self.encoder(images).pooled).squeeze(1) for images in seen]
        return {"loss": (sum(said) - batch.images.mean((1, 2, 3))).square().mean()}

    def preview(self, batch):
        self.encoder(batch.images)
        return Preview({"input": batch.images})


class Plugin(PretextPlugin):
    summary, licence, citation = "brightness", "MIT", "-"

    def views(self):
        return (ViewSpec(blur=1.0),)

    def build(self, encoder, context):
        return Brightness(encoder)
'''

DATA = '''
import numpy as np

from ecamp.api import Dataset, DatasetInfo, Record, Sample


class Plugin(Dataset):
    """Colour images, wider than high; the label tells red from blue."""

    summary, licence, citation = "tinted", "MIT", "-"
    info = DatasetInfo("tinted", "1", labels=("red",), channels=3, mean=(0.5, 0.4, 0.3), std=(0.2,) * 3)

    def records(self):
        splits = ["train"] * 24 + ["val"] * 12 + ["test"] * 12
        return [Record(f"i{i}", f"p{i}", split, f"row {i}", (i % 2,)) for i, split in enumerate(splits)]

    def load(self, record, size):
        rng = np.random.default_rng(int(record.id[1:]))
        image = rng.integers(0, 200, (24, 40, 3)).astype(np.uint8)
        image[..., 0 if record.labels[0] else 2] += 55
        return Sample(image)

    def fingerprint(self):
        return "tinted 1"
'''


def install_strangers(site: Path) -> Path:
    """Write the packages `strider`, `brightness` and `tinted` into a folder for sys.path."""
    for name, group, body in (
        ("strider", "ecamp.encoders", ENCODER), ("brightness", "ecamp.pretext", PRETEXT),
        ("tinted", "ecamp.datasets", DATA),
    ):  # fmt: skip
        fake_package(site, f"stranger-{name}", group, name, body)
    return site
