"""Faults of the published chest sets: options, bad rows, wrong files; and their named splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecamp.audit.dataset import audit_dataset
from ecamp.data.splits import split_hash
from ecamp.datasets.chestxray14 import ChestXray14
from ecamp.datasets.chexpert import CheXpert
from ecamp.datasets.covid_idc import CovidIDC
from ecamp.datasets.covidx import COVIDx
from ecamp.datasets.iu_xray import IUXray
from ecamp.datasets.jsrt import JSRT
from ecamp.datasets.medmnist import MedMNIST
from ecamp.datasets.montgomery import Montgomery
from ecamp.datasets.object_cxr import ObjectCXR, parse_shapes
from ecamp.datasets.padchest import PadChest
from ecamp.datasets.public import PublicDataset
from ecamp.datasets.rsna import DETAILED, RSNA, mgca_split
from ecamp.datasets.shenzhen import Shenzhen
from ecamp.datasets.siim import SIIM
from ecamp.datasets.vindr import VinDrCXR
from ecamp.errors import DataError, EcampError, MissingError, UsageError
from ecamp.io.rle import decode_rle
from tests.datasets import releases
from tests.datasets.releases import Release, lines

CLASSES: dict[str, type[PublicDataset]] = {
    c.name: c
    for c in (
        *(ChestXray14, CheXpert, RSNA, SIIM, COVIDx, ObjectCXR, MedMNIST),
        *(Montgomery, Shenzhen, JSRT, IUXray, CovidIDC, PadChest, VinDrCXR),
    )
}


def make(release: Release, **options: Any) -> PublicDataset:
    """Without the plugin host, so that no installation is needed."""
    name, _, variant = release.name.partition("/")
    cls = CLASSES[name]
    given = {"root": release.root, **release.options, **options}
    config = cls.Config(**{k: str(v) if isinstance(v, Path) else v for k, v in given.items()})
    return cls(config, variant or None)


# --- named_splits and options ----------------------------------------------------------------------


def test_the_mgca_split_at_its_full_size() -> None:
    """16,010 / 5,337 / 5,337, whatever the order of the csv; the draws are pinned."""
    ids = [hashlib.sha256(str(k).encode()).hexdigest()[:36] for k in range(26_684)]
    splits = mgca_split(ids)
    assert Counter(splits.values()) == {"train": 16_010, "val": 5_337, "test": 5_337}
    assert splits == mgca_split(sorted(ids)) == mgca_split(ids[::-1])
    assert split_hash(list(splits), list(splits.values())) == "6ca7dc68c3995738"


def test_uncertain_labels(tmp_path: Path) -> None:
    release = releases.chexpert_original(tmp_path)
    film = "train/patient00001/study1/view1_frontal.jpg"
    for policy, expected in (
        ("published", (1, 0, 0, 1, 1)), ("zeros", (0,) * 5), ("ones", (1,) * 5), ("ignore", (None,) * 5),
    ):  # fmt: skip
        dataset = make(release, uncertain=policy)
        labels = {record.id: record.labels for record in dataset.records()}
        assert labels[film] == expected
        assert labels["train/patient00004/study1/view1_frontal.jpg"] == (0,) * 5, "empty is no -1"
    versions = {make(release, uncertain=p).info.version for p in ("published", "ones", "ignore")}
    prints = {make(release, uncertain=p).fingerprint() for p in ("published", "ones", "ignore")}
    assert len(versions) == len(prints) == 3


def test_lateral_films(tmp_path: Path) -> None:
    release = releases.chexpert_original(tmp_path)
    every, frontal = make(release), make(release, views="frontal")
    assert len(every.records()) == 7
    assert [r.id for r in every.records() if "lateral" in r.id and r not in frontal.records()]
    assert not any("lateral" in record.id for record in frontal.records())
    assert frontal.info.split_id == "chexpert/official-test+frontal"
    valid = make(release, splits="official-valid").records()
    assert {r.id for r in valid if r.split == "test"} == set(releases.chexpert_labels("valid"))


def test_a_whole_training_list_that_nobody_ships(tmp_path: Path) -> None:
    """Two sets of ECAMP have no training list: it is the table without validation and test."""
    nih = releases.nih_ecamp(tmp_path / "a")
    del nih.options["percent"]
    with pytest.raises(MissingError, match=r"no train list of 100 %; it contains .*train_list_10"):
        make(nih).records()
    releases.nih_table(nih.root)
    assert {(r.id, r.split) for r in make(nih).records()} == releases.nih_splits()
    chexpert = releases.chexpert_ecamp(tmp_path / "b")
    (tmp_path / "b/lists/train_list.txt").unlink()
    table = releases.chexpert_original(tmp_path / "c").root / "CheXpert-v1.0-small/train.csv"
    (chexpert.root / "train.csv").write_bytes(table.read_bytes())
    assert {(r.id, r.split) for r in make(chexpert).records()} == chexpert.splits


def test_three_classes_of_rsna(tmp_path: Path) -> None:
    dataset = make(releases.rsna_original(tmp_path), detailed=True)
    assert dataset.info.labels == DETAILED
    assert dataset.info.label_kind == "multiclass"
    for record in dataset.records():
        assert sum(v or 0 for v in record.labels or ()) == 1
        assert (record.labels or ())[2] == int(bool(releases.RSNA_FILMS[record.id]))
    assert dataset.info.version == "ecamp+detailed"


def test_runs_read_from_the_first_pixel_would_be_another_mask() -> None:
    """The trap of SIIM: its starts count from the end of the run before."""
    text = releases.relative_runs((100, 50, 400, 90))
    mask = decode_rle(text, 1024, 1024, relative=True)
    assert mask[50:90, 100:400].all()
    assert mask.sum() == 300 * 40
    # Read from the first pixel, the same numbers lie elsewhere and on top of each other.
    assert decode_rle(text, 1024, 1024, relative=False).sum() < mask.sum() / 2


def test_lists_are_found_around_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = releases.nih_mrm(tmp_path / "here")
    assert make(release, lists="auto").records()
    clone = tmp_path / "far/MRM-pytorch"
    clone.parent.mkdir()
    (tmp_path / "here/MRM-pytorch").rename(clone)
    with pytest.raises(
        MissingError, match=r"no lists in .* next to it, in \$ECAMP_LISTS or in the working"
    ):
        make(release, lists="auto").records()
    for named in (clone, clone.parent):
        monkeypatch.setenv("ECAMP_LISTS", str(named))
        assert make(release, lists="auto").records()
    monkeypatch.delenv("ECAMP_LISTS")
    for named in (clone, clone / "DatasetsSplits/NIH_ChestX-ray"):
        assert make(release, lists=str(named)).records()
    with pytest.raises(MissingError, match="no such folder"):
        make(release, lists=str(tmp_path / "nowhere")).records()


def test_official_lists_of_nih_are_not_taken_for_published_ones(tmp_path: Path) -> None:
    release = releases.nih_original(tmp_path)
    with pytest.raises(
        MissingError, match=r"no lists in .*the folder contains Data_Entry_2017\.csv"
    ):
        make(release, splits="mrm").records()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": "offical"}, "no splits 'offical'.*Did you mean 'official'"),
        ({"percent": 10, "splits": "official"}, "'official' are not read from lists"),
        ({"lists": "auto", "splits": "official"}, "'official' are not read from lists"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        make(releases.nih_original(tmp_path), **options).records()


def test_flaws_that_are_known_and_that_are_seen(tmp_path: Path) -> None:
    leaky = make(releases.siim_ecamp(tmp_path / "a")).info
    assert leaky.leaks
    assert leaky.split_id == "siim/mrm+10%"
    assert "618 of 672" in leaky.flaws[0]
    assert "1 of 3 test images: the image or its patient is in train too" in leaky.flaws
    assert "2 / 3 images in val / test, these splits have 1,898 / 1,904" in leaky.flaws
    equal = make(releases.chexpert_ecamp(tmp_path / "b")).info.flaws
    assert "2 of 2 test images: the image or its patient is in val too" in equal
    clean = make(releases.covidx_cxr4(tmp_path / "c")).info
    assert clean.flaws == ()
    assert not clean.leaks
    few = make(releases.rsna_mgca(tmp_path / "d")).info.flaws
    assert few == (
        "7 / 3 / 2 images in train / val / test, these splits have 16,010 / 5,337 / 5,337",
    )


def test_a_hash_detects_other_images_of_the_same_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    release = releases.rsna_benchx(tmp_path)
    known = replace(RSNA.named_splits["benchx"], counts=(6, 2, 4))
    monkeypatch.setattr(RSNA, "named_splits", {"benchx": known})
    assert any("other images than expected" in flaw for flaw in make(release).info.flaws)
    digest = split_hash(list(releases.RSNA_SPLITS), list(releases.RSNA_SPLITS.values()))
    monkeypatch.setattr(RSNA, "named_splits", {"benchx": replace(known, hash=digest)})
    assert make(release).info.flaws == ()


def test_patients_of_covidx_lists(tmp_path: Path) -> None:
    """Some patients follow from names; with the index of 9A next to the images all are known."""
    release = releases.covidx_ecamp(tmp_path)
    by_name = {r.id: r.patient for r in make(release).records()}
    assert len({by_name[path] for path in by_name if "A000001" in path}) == 1
    sars = [path for path in by_name if "SARS" in path]
    assert len({by_name[path] for path in sars}) == 2
    lines(release.root / "train.txt", [" ".join(row) for row in releases.COVIDX_TRAIN])
    known = {r.id: r.patient for r in make(release).records()}
    assert {known[path] for path in sars} == {"3"}


# --- bad input ----------------------------------------------------------------------------------


def test_pickles_are_not_read(tmp_path: Path) -> None:
    """MGCA's detection lists are pickles; its split is drawn from the csv instead."""
    release = releases.rsna_mgca(tmp_path)
    folder = tmp_path / "RSNA_Pneumonia"
    for name in ("train", "val", "test"):
        lines(folder / f"{name}.pkl", ["cos"])
    with pytest.raises(DataError, match=r"(?s)pickles are not read.*splits=mgca-det without lists"):
        make(release, lists=str(folder)).records()
    assert len(make(release).records()) == 12


def test_masks_of_rows_that_were_drawn_apart(tmp_path: Path) -> None:
    """GLoRIA's rows: the parts of a film's mask are in two splits, and together the whole."""
    for build in (releases.siim_gloria, releases.siim_rows_drawn):
        release = build(tmp_path / build.__name__)
        dataset = make(release)
        whole = make(release, splits="ecamp", lists=None)
        masks: dict[str, Any] = {}
        for record in dataset.records():
            mask = dataset.load(record, 64).mask
            assert mask is not None
            masks[record.id] = masks.get(record.id, False) | mask
        for record in whole.records():
            assert np.array_equal(masks[record.id], whole.load(record, 64).mask)
    first = next(iter(releases.SIIM_FILMS))
    parts = [r for r in make(releases.siim_gloria(tmp_path)).records() if r.id == first]
    assert {r.split for r in parts} == {"train", "test"}
    assert all(len(r.payload.runs) == 1 for r in parts)


@pytest.mark.parametrize("build", [releases.siim_gloria, releases.chexpert_mgca])
def test_leaks_of_published_draws_are_measured(
    tmp_path: Path, build: Callable[[Path], Release]
) -> None:
    """The protocol reports leaks, and the audit finds them in the records."""
    dataset = make(build(tmp_path))
    assert dataset.info.leaks
    leaks = [f for f in audit_dataset(dataset, images=False) if f.severity == "leak"]
    measured = [flaw for flaw in dataset.info.flaws if "the image or its patient is in" in flaw]
    assert leaks
    assert measured


def test_maco_has_a_test_split_only(tmp_path: Path) -> None:
    dataset = make(releases.rsna_maco(tmp_path))
    assert {record.split for record in dataset.records()} == {"test"}
    assert all(record.labels == (1,) for record in dataset.records())
    assert any("only films with a box" in flaw for flaw in dataset.info.flaws)


def test_our_splits_keep_the_shares_of_each_class(tmp_path: Path) -> None:
    """Of 12 films 5 have a box; 70 / 10 / 20 % of both kinds, to within one."""
    for build in (releases.rsna_original, releases.siim_original):
        records = make(build(tmp_path / build.__name__)).records()
        for label in (0, 1):
            found = [r.split for r in records if r.labels == (label,)]
            for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
                assert abs(found.count(split) - share * len(found)) <= 1


# A list or table, its header, its row of number k, and a bad one.
FORTY: dict[str, tuple[Callable[[Path], Release], str, str, Callable[[int], str], str]] = {
    "boxes": (releases.rsna_det, "clone/Fine-tuning/Detection/datasets/RSNA/train_list_1.csv",
              "image_path,bbox", lambda k: f'train_images/{k}.png,"[[1.0, 2.0, 3.0, 4.0]]"',
              'train_images/1.png,"[[1.0, 2.0, 3.0]]"'),
    "boxes of LoVT": (releases.rsna_lovt, "lovt/datasets/RSNA-Pneunomia-Detection/train.csv",
                      "ID,boxes,classes", lambda k: f"{k},1.0;2.0;3.0;4.0,1", "1,1.0;2.0;3.0,1"),
    "rsna csv": (releases.rsna_original, "rsna/stage_2_train_labels.csv",
                 "patientId,x,y,width,height,Target", lambda k: f"{k},1.0,2.0,3.0,4.0,1", "1,1.0,2.0,0,4.0,1"),
    "covidx": (releases.covidx_original, "COVIDx/train_COVIDx9A.txt", "",
               lambda k: f"p{k} {k}.png normal x", "p1 1.png normal"),
    "chexpert": (releases.chexpert_ecamp, "lists/train_list.txt", "",
                 lambda k: f"train/patient{k:05}/study1/view1_frontal.jpg 0 0 0 0 1",
                 "train/patient1/study1/view1_frontal.jpg 0 0 0 0"),
    "objects": (releases.object_cxr, "object-CXR/train.csv", "image_name,annotation",
                lambda k: f"{k}.jpg,0 1 2 3 4", "1.jpg,0 1 2 3"),
    "projections": (releases.iu_kaggle, "iu/indiana_projections.csv", "uid,filename,projection",
                    lambda k: f"1,{k}.png,Frontal", "1,1.png,Front"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", FORTY.values(), ids=FORTY)
def test_one_bad_row_of_forty_thousand_in_other_forms(
    tmp_path: Path, case: tuple[Callable[[Path], Release], str, str, Callable[[int], str], str]
) -> None:
    build, file, header, row, bad = case
    release = build(tmp_path)
    rows = [row(k) for k in range(100, 40_100)]
    kept = (tmp_path / file).read_text().splitlines()[bool(header) :]
    rows[31_415] = bad
    lines(tmp_path / file, [*([header] if header else []), *rows, *kept])
    number = 31_416 + bool(header)
    with pytest.raises(DataError, match=rf"{Path(file).name} line {number}"):
        make(release).records()
    rest = make(release, on_bad_row="skip")
    read = [r for r in rest.records() if r.row.startswith(f"{Path(file).name} line ")]
    assert len(read) == 39_999 + len({line.split(",")[0] for line in kept})


@pytest.mark.slow
def test_one_bad_row_of_forty_thousand(tmp_path: Path) -> None:
    release = releases.nih_mrm(tmp_path)
    path = tmp_path / "MRM-pytorch/DatasetsSplits/NIH_ChestX-ray/train_list.txt"
    rows = [f"{k:08}_000.png {' '.join('0' * 14)}" for k in range(100, 40_100)]
    rows[31_415] = rows[31_415].replace(" 0", " O", 1)
    lines(path, rows)
    with pytest.raises(DataError, match=r"train_list\.txt line 31416"):
        make(release).records()
    rest = make(release, on_bad_row="skip")
    assert sum(record.split == "train" for record in rest.records()) == 39_999
    assert any(flaw.startswith("1 rows skipped, first") for flaw in rest.info.flaws)


@pytest.mark.parametrize(
    ("build", "file", "column"),
    [
        (releases.nih_original, "Data_Entry_2017.csv", "Finding Labels"),
        (releases.chexpert_original, "CheXpert-v1.0-small/train.csv", "Edema"),
        (releases.rsna_original, "stage_2_train_labels.csv", "Target"),
        (releases.siim_stage2, "stage_2_train.csv", "EncodedPixels"),
        (releases.siim_benchx, "siim_labels.csv", "has_pneumo"),
        (releases.object_cxr, "train.csv", "annotation"),
        (releases.iu_kaggle, "indiana_projections.csv", "projection"),
        (releases.iu_kaggle, "indiana_reports.csv", "findings"),
        (releases.covid_idc, "metadata.csv", "modality"),
        (releases.padchest, "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "Labels"),
    ],
)
def test_a_missing_column_is_named_with_the_present_ones(
    tmp_path: Path, build: Callable[[Path], Release], file: str, column: str
) -> None:
    release = build(tmp_path)
    path = release.root / file
    path.write_bytes(path.read_bytes().replace(column.encode(), b"Other", 1))
    with pytest.raises(DataError, match=rf"{path.name}: no column '{column}'(?s:.*)Known: .*Other"):
        make(release).records()


def test_absolute_paths_below_root_are_taken(tmp_path: Path) -> None:
    release = releases.chexpert_ecamp(tmp_path)
    for path in (tmp_path / "lists").glob("*.txt"):
        path.write_text("".join(f"{release.root}/{row}\n" for row in path.read_text().splitlines()))
    dataset = make(release)
    assert dataset.load(dataset.records()[0], 64).image.shape == (40, 48, 1)
    assert {(r.id, r.split) for r in dataset.records()} == release.splits, "ids know no root"
    with pytest.raises(DataError, match="is outside"):
        make(release, root=str(tmp_path / "lists")).records()


def test_two_lists_for_one_split(tmp_path: Path) -> None:
    release = releases.rsna_det(tmp_path)
    folder = tmp_path / "clone/Fine-tuning/Detection/datasets/RSNA"
    (folder / "val.csv").write_bytes((folder / "val_list.csv").read_bytes())
    with pytest.raises(DataError, match=r"two lists for val: val\.csv and val_list\.csv"):
        make(release).records()


def test_a_half_unpacked_archive(tmp_path: Path) -> None:
    """Missing films are named when they are read; the rest is there."""
    release = releases.nih_original(tmp_path)
    lost = release.root / "images_002/images/00000004_000.png"
    lost.unlink()
    dataset = make(release)
    assert len(dataset.records()) == 8
    (record,) = (r for r in dataset.records() if r.id == lost.name)
    with pytest.raises(
        DataError, match=r"00000004_000\.png \(test_list\.txt line 1\): no such image"
    ):
        dataset.load(record, 64)


def test_a_png_is_taken_before_its_dicom(tmp_path: Path) -> None:
    release = releases.rsna_original(tmp_path)
    name = next(iter(releases.RSNA_FILMS))
    releases.paint(release.root / f"train_images/{name}.png", size=(32, 32))
    record = make(release).records()[0]
    assert record.payload.path == f"train_images/{name}.png"
    assert make(release).records()[1].payload.path.endswith(".dcm")


def test_files_that_are_not_medmnist(tmp_path: Path) -> None:
    release = releases.medmnist(tmp_path, "retinamnist", 28)
    good = release.index.read_bytes()
    with pytest.raises(
        MissingError, match=r"found no retinamnist_64\.npz.* contains retinamnist\.npz"
    ):
        make(release, size=64).records()
    release.index.rename(release.root / "retinamnist_64.npz")
    with pytest.raises(DataError, match=r"train_images is \(6, 28, 28, 3\), not \(n, 64, 64\)"):
        make(release, size=64).records()
    release.index.write_bytes(good[: len(good) // 2])
    with pytest.raises(EcampError, match=r"retinamnist\.npz: not an npz file"):
        make(release).records()
    with np.load(release.root / "retinamnist_64.npz") as arrays:
        held = dict(arrays)
    np.savez(release.index, **{k: v for k, v in held.items() if k != "val_labels"})
    with pytest.raises(DataError, match=r"no array val_labels; it contains .*test_images\.npy"):
        make(release).records()
    np.savez(release.index, **{**held, "val_labels": held["val_labels"] + 5})
    with pytest.raises(DataError, match=r"val_labels is .* of 0 to 4"):
        make(release).records()
    np.savez(release.index, **{**held, "val_images": np.array([None, 1], object)})
    with pytest.raises(DataError, match="is not a plain array"):
        make(release).records()


def test_medmnist_gives_the_arrays(tmp_path: Path) -> None:
    for name, size in (("pneumoniamnist", 28), ("chestmnist", 64), ("retinamnist", 28)):
        release = releases.medmnist(tmp_path / name, name, size)
        dataset = make(release)
        with np.load(release.index) as arrays:
            for record in dataset.records():
                split, k = record.id.split("/")
                image = arrays[f"{split}_images"][int(k)]
                got = dataset.load(record, 224).image
                assert np.array_equal(got if image.ndim == 3 else got[..., 0], image)
        assert dataset.info.name == f"medmnist-{name}"
        assert dataset.info.version == f"official+{size}px"


NUMBER = st.integers(0, 2000)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("012"), st.lists(st.tuples(NUMBER, NUMBER), min_size=3, max_size=8)
        )
    )
)
def test_shapes_of_object_cxr(drawn: list[tuple[str, list[tuple[int, int]]]]) -> None:
    """A shape's box is that of its points; empty ones and wrong numbers of points are refused."""
    text, expected = [], []
    for kind, points in drawn:
        used = points if kind == "2" else points[:2]
        (x1, x2), (y1, y2) = ((min(v), max(v)) for v in zip(*used, strict=True))
        if x1 == x2 or y1 == y2:
            continue
        shown = used if kind == "2" else [(x1, y1), (x2, y2)]
        text.append(" ".join([kind, *(f"{x} {y}" for x, y in shown)]))
        expected.append((x1, y1, x2, y2))
    assert parse_shapes(";".join(text), "row") == tuple(expected)
    assert parse_shapes("; ".join(text) + ";", "row") == tuple(expected)
    for bad in (
        "3 1 1 2 2",
        "0 1 1 2",
        "0 1 1 2 2 3 3",
        "2 1 1 2 2",
        "1 5 5 5 9",
        "0 a b c d",
        "0",
    ):
        with pytest.raises(DataError, match=r"row: .* is not a shape"):
            parse_shapes(";".join([*text, bad]), "row")
