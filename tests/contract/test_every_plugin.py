"""Every registered plugin keeps the contract; a new one must be listed here with its options."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ecamp.api.plugin import GROUPS
from ecamp.plugin.host import list_plugins
from ecamp.testing.contract import check_plugin
from tests.datasets.releases import RELEASES

TESTS = Path(__file__).parents[1]
REAL = TESTS / "datasets"

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

# These need a folder, a file, other plugins, an endpoint or a model: the named tests make them and
# run the contract there. Of the public sets, test_releases.py has a folder in each layout.
PUBLIC = [
    "chestxray14", "chexpert", "rsna", "siim", "covidx", "object-cxr", "medmnist", "montgomery",
    "shenzhen", "jsrt", "iu-xray", "covid-idc", "padchest", "vindr-cxr",
]  # fmt: skip
ELSEWHERE = {
    **dict.fromkeys(PUBLIC, "datasets/test_releases.py::test_contract"),
    "mimic-cxr": "datasets/test_mimic_cxr.py::test_contract",
    "packed": "datasets/test_packed.py::test_contract",
    "hf-clip": "encoders/test_hf_clip.py::test_it_keeps_the_contract",
    "consensus": "distill/test_consensus.py::test_contract",
    "published": "distill/test_published_answers.py::test_contract",
    "llm": "distill/test_llm.py::test_contract",
    "transformers": "distill/test_local.py::test_contract",
}


def test_every_plugin_is_checked_here_or_elsewhere() -> None:
    """Say in EXAMPLES how to make a new plugin, or in ELSEWHERE which test does."""
    ours = [
        entry.name for group in GROUPS for entry in list_plugins(group) if entry.dist == "ecamp"
    ]
    here = [name for examples in EXAMPLES.values() for name, texts in examples.items() if texts]
    assert sorted(ours) == sorted([*here, *ELSEWHERE])


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_contract_is_run_elsewhere(name: str) -> None:
    file, _, function = ELSEWHERE[name].partition("::")
    tree = ast.parse((TESTS / file).read_text())
    (test,) = (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == function)
    checked = [
        ast.unparse(node)
        for node in ast.walk(test)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "check_plugin"
    ]
    made = name in names_of_releases()
    assert any(name in call or (made and "release.ref" in call) for call in checked)


@cache
def names_of_releases() -> frozenset[str]:
    """Data sets of which test_releases.py makes a folder."""
    with TemporaryDirectory() as folder:
        return frozenset(
            build(Path(folder) / str(k)).name.split("/")[0]
            for k, build in enumerate(RELEASES.values())
        )


@pytest.mark.slow
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
    if text.endswith(".yaml"):
        monkeypatch.setenv("ECAMP_DATA", str(request.getfixturevalue("shared_data")))
    check_plugin(group, text)
