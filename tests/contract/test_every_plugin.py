"""Every registered plugin keeps its promises; a new one must say here how it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecamp.api.plugin import GROUPS
from ecamp.api.plugin_ref import PluginRef
from ecamp.plugin.host import list_plugins
from ecamp.testing.contract import check_plugin

REAL = Path(__file__).parents[1] / "datasets"

# Plugin -> one-line references to check it by; small, and every family by a ViT and a CNN.
PRESETS = [
    "ecamp-published", "mrm-like", "ecamp-uniform-masking", "ecamp-no-rebalance",
    "ecamp-global-fusion", "ecamp-fine-fusion", "ecamp-no-text", "ecamp-no-super-resolution",
    "ecamp-random-window", "ecamp-small-window", "ecamp-loss-on-all",
]  # fmt: skip
EXAMPLES = {
    "ecamp.encoders": {
        "timm": [
            "timm/resnet18?image_size=64",
            "timm/resnet18?image_size=96",
            "timm/vit_tiny_patch16_224?image_size=64",
            "timm/convnext_atto?image_size=64",
            "timm/convnext_atto?image_size=96",
            "timm/resnet50?image_size=64",
        ],
        "vit-micro": ["vit-micro", "vit-micro?image_size=96&patch_size=16&width=64&depth=2"],
    },
    "ecamp.pretext": {"none": ["none"], "mae": ["mae", "mae?norm_pix=false"],
                      "ecamp": ["ecamp", "ecamp?super_resolution=false&rebalance=false",
                                "ecamp-published"],
                      "weights": ["weights?path=any.safetensors"],
                      **{name: [name] for name in PRESETS}},
    "ecamp.datasets": {
        "phantom": ["phantom?pretrain=20&train=20&val=20&test=20"],
        "folder": [str(REAL / "covid_cxr.yaml"), str(REAL / "kermany_cxr.yaml")],
    },
    "ecamp.tasks": {
        "cls": ["cls"], "ret": ["ret"],
        "seg": ["seg", "seg?head=linear", "seg?head=conv&loss=published", "seg?head=pyramid"],
        "det": ["det", "det?head=yolov3"],
    },
    "ecamp.distillers": {"rules": ["rules", "rules?lexicon=fundus&remember=0"]},
}  # fmt: skip

# These need a folder, a file, other plugins, an endpoint or a model: their own tests make them and
# run the contract there.
ELSEWHERE = {
    "mimic-cxr", "chestxray14", "chexpert", "rsna", "siim", "covidx", "object-cxr", "medmnist",
    "montgomery", "shenzhen", "jsrt", "iu-xray", "covid-idc", "padchest", "vindr-cxr",
    "packed", "published", "consensus", "llm", "transformers", "hf-clip",
}  # fmt: skip
OURS = [
    (e.group, e.name)
    for g in GROUPS
    for e in list_plugins(g)
    if e.dist == "ecamp" and e.name not in ELSEWHERE
]


@pytest.mark.parametrize(("group", "name"), OURS)
def test_every_plugin_has_an_example(group: str, name: str) -> None:
    assert EXAMPLES[group].get(name), f"say in EXAMPLES how to make {group} {name}"


@pytest.mark.parametrize(
    ("group", "text"),
    [
        (group, text)
        for group, names in EXAMPLES.items()
        for texts in names.values()
        for text in texts
    ],
)
def test_contract(
    group: str, text: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if PluginRef.parse(text).name not in {e.name for e in list_plugins(group)}:
        pytest.skip("registered in setup.py, not in this installation: install again")
    if text.endswith(".yaml"):
        monkeypatch.setenv("ECAMP_DATA", str(request.getfixturevalue("shared_data")))
    check_plugin(group, text)
