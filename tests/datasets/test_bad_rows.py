"""One bad row in a table of each public chest set: named with its file and line, and left out on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ecamp.errors import DataError
from tests.datasets import releases
from tests.datasets.releases import Release
from tests.datasets.test_release_traps import make


@dataclass(frozen=True)
class Trap:
    """A row made bad in the folder of a release.

    Attributes:
        build: Makes the folder.
        file: The table, below the folder that is given to `build`.
        good, bad: Text that is replaced once, and its replacement.
        message: Pattern that the error must match.
    """

    build: Callable[[Path], Release]
    file: str
    good: str
    bad: str
    message: str


TRAPS = {
    "nih finding": Trap(
        build=releases.nih_original,
        file="CXR14/Data_Entry_2017.csv",
        good=",Mass,",
        bad=",Mess,",
        message=r"Data_Entry_2017\.csv line 7: unknown finding 'Mess'",
    ),
    "nih name": Trap(
        build=releases.nih_original,
        file="CXR14/test_list.txt",
        good="00000004_000.png",
        bad="zzz.png",
        message=r"test_list\.txt line 1: 'zzz\.png' is not in Data_Entry",
    ),
    "nih outside": Trap(
        build=releases.nih_ecamp,
        file="ECAMP/ECAMP/Fine-tuning/Classification/datasets/ChestX-ray14/test_list.txt",
        good="images_002/00000004_000.png",
        bad="../../00000004_000.png",
        message=r"test_list\.txt line 1: '\.\./\.\./00000004_000\.png' is outside",
    ),
    "nih labels": Trap(
        build=releases.nih_mrm,
        file="MRM-pytorch/DatasetsSplits/NIH_ChestX-ray/test_list.txt",
        good="00000005_000.png 0 ",
        bad="00000005_000.png ",
        message=r"test_list\.txt line 2: 13 labels",
    ),
    "nih twice": Trap(
        build=releases.nih_mrm,
        file="MRM-pytorch/DatasetsSplits/NIH_ChestX-ray/test_list.txt",
        good="00000005_000.png",
        bad="00000004_000.png",
        message=r"duplicate image '00000004_000\.png' "
        r"\(test_list\.txt line 1 and test_list\.txt line 2\)",
    ),
    "chexpert label": Trap(
        build=releases.chexpert_original,
        file="data/CheXpert-v1.0-small/train.csv",
        good=",1.0,",
        bad=",2.0,",
        message=r"train\.csv line 4: '2\.0' is not a label",
    ),
    "chexpert name": Trap(
        build=releases.chexpert_ecamp,
        file="lists/test_list.txt",
        good="patient64541/study1/view1",
        bad="someone/study1/view1",
        message=r"test_list\.txt line 1: 'valid/someone.* is not a row",
    ),
    "rsna target": Trap(
        build=releases.rsna_original,
        file="rsna/stage_2_train_labels.csv",
        good=",1\r\n",
        bad=",0\r\n",
        message=r"stage_2_train_labels\.csv line 2: Target '0' with box 64\.0, 128\.0",
    ),
    "rsna no box": Trap(
        build=releases.rsna_original,
        file="rsna/stage_2_train_labels.csv",
        good=",,,,,0",
        bad=",,,,,1",
        message=r"stage_2_train_labels\.csv line 4: Target '1'",
    ),
    "rsna short row": Trap(
        build=releases.rsna_original,
        file="rsna/stage_2_train_labels.csv",
        good=",,,,,0",
        bad="",
        message=r"stage_2_train_labels\.csv line 4: 1 fields, the header has 6",
    ),
    "rsna box": Trap(
        build=releases.rsna_det,
        file="clone/Fine-tuning/Detection/datasets/RSNA/test_list.csv",
        good="[0.0, 0.0, 0.0, 0.0]",
        bad="[0.0, 0.0]",
        message=r"test_list\.csv line \d: not a list of boxes",
    ),
    "siim empty": Trap(
        build=releases.siim_original,
        file="siim/train-rle.csv",
        good=", -1",
        bad=", ",
        message=r"train-rle\.csv line 4: EncodedPixels is empty",
    ),
    "siim label": Trap(
        build=releases.siim_benchx,
        file="SIIM/siim_labels.csv",
        good="1.2.3.1,0",
        bad="1.2.3.1,yes",
        message=r"train\.txt line 2: '1_train_0_' has no 0 or 1 in siim_labels\.csv",
    ),
    "covidx class": Trap(
        build=releases.covidx_original,
        file="COVIDx/test_COVIDx9A.txt",
        good="normal",
        bad="norml",
        message=r"test_COVIDx9A\.txt line 2: unknown class 'norml'",
    ),
    "covidx words": Trap(
        build=releases.covidx_original,
        file="COVIDx/train_COVIDx9A.txt",
        good="COVID1 COVID(1).png",
        bad="x",
        message=r"train_COVIDx9A\.txt line 3: 3 words",
    ),
    "covidx index": Trap(
        build=releases.covidx_ecamp,
        file="lists/test_list.txt",
        good=".png 2",
        bad=".png 3",
        message=r"test_list\.txt line 1: .* is not a class",
    ),
    "rsna corners": Trap(
        build=releases.rsna_mgca_cls,
        file="rsna/test.csv",
        good="]]",
        bad="]",
        message=r"test\.csv line \d: not a list of boxes",
    ),
    "rsna target of MGCA": Trap(
        build=releases.rsna_mgca_cls,
        file="rsna/test.csv",
        good=",,0",
        bad=",,1",
        message=r"test\.csv line \d: Target 1 with 0 boxes",
    ),
    "rsna box of LoVT": Trap(
        build=releases.rsna_lovt,
        file="lovt/datasets/RSNA-Pneunomia-Detection/test.csv",
        good=";",
        bad=" ",
        message=r"test\.csv line \d: not a list of boxes",
    ),
    "siim id of LoVT": Trap(
        build=releases.siim_lovt,
        file="lovt/datasets/siim-acr-pneumothorax-segmentation/test.csv",
        good="1.2.276",
        bad="9.2.276",
        message=r"test\.csv line 2: '9\.2\.276.*' is not in train-rle\.csv",
    ),
    "covidx class of MGCA": Trap(
        build=releases.covidx_mgca,
        file="COVIDx/test.csv",
        good=",COVID-19,2",
        bad=",COVID-19,1",
        message=r"test\.csv line \d: class 'COVID-19' does not match label 1, pneumonia",
    ),
    "covidx label of MGCA": Trap(
        build=releases.covidx_mgca,
        file="COVIDx/test.csv",
        good=",COVID-19,2",
        bad=",COVID-19,2.0",
        message=r"test\.csv line \d: '2\.0' is not a label",
    ),
    "object shape": Trap(
        build=releases.object_cxr,
        file="object-CXR/dev.csv",
        good="0 0 0 20 5",
        bad="0 0 0 20",
        message=r"dev\.csv line 2: '0 0 0 20' is not a shape",
    ),
    "jsrt size": Trap(
        build=releases.jsrt_png,
        file="jsrt/CLNDAT_EN.txt",
        good="5\t30\t",
        bad="5\t?\t",
        message=r"CLNDAT_EN\.txt line 2: a nodule of \? mm at 1614, 1090",
    ),
    "jsrt centre": Trap(
        build=releases.jsrt_png,
        file="jsrt/CLNDAT_EN.txt",
        good="1634\t692",
        bad="1634\t6920",
        message=r"CLNDAT_EN\.txt line 1: a nodule of 15 mm at 1634, 6920",
    ),
    "jsrt centre of Kaggle": Trap(
        build=releases.jsrt_kaggle,
        file="kaggle-jsrt/nodules-in-chest-xrays-jsrt/jsrt_metadata.csv",
        good="1634,692",
        bad="1634,",
        message=r"jsrt_metadata\.csv line 2: a nodule of 15 mm at 1634, ",
    ),
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_a_bad_row_is_named_and_can_be_left_out(tmp_path: Path, trap: Trap) -> None:
    release = trap.build(tmp_path)
    whole = len(make(release).records())
    path = tmp_path / trap.file
    text = path.read_bytes().decode()
    assert trap.good in text
    path.write_bytes(text.replace(trap.good, trap.bad, 1).encode())
    with pytest.raises(DataError, match=trap.message):
        make(release).records()
    rest = make(release, on_bad_row="skip")
    assert len(rest.records()) == whole - 1
    assert any("rows skipped, first " in flaw for flaw in rest.info.flaws)
    again = make(trap.build(tmp_path / "again"), on_bad_row="skip")
    assert rest.fingerprint() != again.fingerprint()
