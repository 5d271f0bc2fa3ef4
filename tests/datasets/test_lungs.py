"""Montgomery, Shenzhen, JSRT: which lung is which, what is not known, what must not come out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ecamp.api.dataset import Sample
from ecamp.datasets.jsrt import JSRT, ORGANS, nodule_box
from ecamp.datasets.montgomery import Montgomery
from ecamp.datasets.organ_masks import OrganMaskDataset, right_first
from ecamp.datasets.public import PublicDataset
from ecamp.datasets.shenzhen import Shenzhen
from ecamp.errors import DataError, UsageError
from ecamp.io.images import fit_mask, read_mask
from tests.datasets import releases
from tests.datasets.releases.lungs import UNOUTLINED, organs
from tests.datasets.test_release_traps import make


def lungs(dataset: PublicDataset, k: int) -> Sample:
    return dataset.load(dataset.records()[k], 64)


def filled(box: tuple[float, float, float, float], height: int, width: int) -> np.ndarray:
    x1, y1, x2, y2 = (int(edge) for edge in box)
    rows, columns = np.mgrid[:height, :width]
    return np.asarray((rows >= y1) & (rows < y2) & (columns >= x1) & (columns < x2))


@pytest.mark.parametrize("image_side", [True, False])
def test_the_right_lung_lies_left_in_the_image(tmp_path: Path, image_side: bool) -> None:
    """Whatever side the folders' names mean: each lung has a shape of its own here."""
    dataset = make(releases.montgomery(tmp_path, image_side))
    assert dataset.info.mask_classes == ("right lung", "left lung")
    for k in range(len(dataset.records())):
        mask, drawn = lungs(dataset, k).mask, organs(k)
        assert mask is not None
        for organ, layer in zip(dataset.info.mask_classes, mask, strict=True):
            assert np.array_equal(layer, filled(drawn[organ], 60, 64))
        columns = [np.nonzero(layer)[1].mean() for layer in mask]
        assert columns[0] < 32 < columns[1]


@given(st.lists(st.integers(0, 9), max_size=9), st.lists(st.integers(0, 9), max_size=9))
def test_sides_follow_the_centre_of_the_outline(one: list[int], other: list[int]) -> None:
    masks = []
    for columns in (one, other):
        mask = np.zeros((3, 10), bool)
        mask[1, columns] = True
        masks.append(mask)
    means = [float(np.mean(sorted(set(c)))) if c else 4.5 for c in (one, other)]
    expected = masks if means[0] <= means[1] else masks[::-1]
    assert all(a is b for a, b in zip(right_first(*masks), expected, strict=True))


def test_radiologists_right_lungs_lie_left(shared_data: Path) -> None:
    """The rule held against 27 real films whose lungs were drawn and named apart."""
    masks = shared_data / "covid_cxr/masks_parts"
    films = 0
    for path in sorted(masks.glob("*__left_lung.png")):
        twin = path.with_name(path.name.replace("left", "right"))
        left, right = read_mask(path), read_mask(twin)
        for pair in ((left, right), (right, left)):
            assert right_first(*pair)[0] is right, path.name
        films += 1
    assert films == 27


@pytest.mark.slow
@pytest.mark.parametrize("build", [releases.jsrt, releases.jsrt_png, releases.jsrt_kaggle])
def test_five_organs_of_jsrt_each_in_its_place(tmp_path: Path, build) -> None:
    dataset = make(build(tmp_path))
    assert dataset.info.mask_classes == ORGANS
    for k in range(len(dataset.records())):
        sample = lungs(dataset, k)
        assert sample.mask is not None
        height, width = sample.image.shape[:2]
        for organ, layer in zip(ORGANS, sample.mask, strict=True):
            box = tuple(edge * width / 64 for edge in organs(k)[organ])
            assert np.array_equal(layer, filled(box, height, width)), organ  # type: ignore[arg-type]


def test_bone_is_white_in_raw_films(tmp_path: Path) -> None:
    """The same film raw and as PNG: its heart is bright and its corner dark in both."""
    raw, png = make(releases.jsrt(tmp_path / "a")), make(releases.jsrt_png(tmp_path / "b"))
    assert lungs(raw, 0).image.shape == (2048, 2048, 1)
    for dataset in (raw, png):
        image = lungs(dataset, 0).image[..., 0]
        x1, y1, x2, y2 = (int(edge * len(image) / 64) for edge in organs(0)["heart"])
        assert set(image[y1:y2, x1:x2].ravel().tolist()) == {220}
        assert image[-1, -1] == 40


def test_a_film_without_mask_is_of_unknown_lungs(tmp_path: Path) -> None:
    for k, dataset in enumerate(
        (make(releases.shenzhen(tmp_path / "a")),
         make(releases.lung_masks_of_kaggle(tmp_path / "b", "shenzhen")))
    ):  # fmt: skip
        records = dataset.records()
        assert {int(r.id.split("_")[1]) for r in records if not r.has_mask} == set(UNOUTLINED), k
        for record in records:
            assert (dataset.load(record, 64).mask is None) == (not record.has_mask)


def test_lungs_apart_or_together(tmp_path: Path) -> None:
    apart, kaggle = releases.montgomery(tmp_path / "a"), releases.lung_masks_of_kaggle(
        tmp_path / "b", "montgomery"
    )  # fmt: skip
    joined = make(apart, lungs="together")
    assert make(kaggle).info.mask_classes == joined.info.mask_classes == ("lung",)
    assert make(kaggle).info.split_id == joined.info.split_id == "montgomery/ecamp+together"
    for k in range(len(joined.records())):
        one, other = lungs(joined, k).mask, lungs(make(kaggle), k).mask
        assert np.array_equal(one, other)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"both lungs in one mask(?s:.*)lungs=together"):
        _ = make(kaggle, lungs="apart").info
    jsrt = make(releases.jsrt_png(tmp_path / "c"), lungs="together")
    assert jsrt.info.mask_classes == ("lung",)
    mask = lungs(jsrt, 0).mask
    both = [filled(organs(0)[organ], 64, 64) for organ in ORGANS[:2]]
    assert np.array_equal(mask, (both[0] | both[1])[None])  # type: ignore[arg-type]
    prints = {make(apart, lungs=lung).fingerprint() for lung in ("apart", "together")}
    assert len(prints) == 2


def test_without_masks_or_table_the_rest_is_read(tmp_path: Path) -> None:
    release = releases.jsrt_png(tmp_path)
    (release.root / "scratch").rename(tmp_path / "elsewhere")
    plain = make(release)
    assert plain.info.mask_classes == ()
    assert lungs(plain, 0).mask is None
    assert plain.info.box_classes == ("nodule",)
    release.index.unlink()
    plain = make(release)
    assert plain.info.box_classes == ()
    assert not any(record.has_boxes or record.has_mask for record in plain.records())
    assert {r.id: r.labels for r in plain.records()} == release.labels


def test_a_lost_mask_is_named(tmp_path: Path) -> None:
    release = releases.montgomery(tmp_path)
    (release.root / "ManualMask/rightMask/MCUCXR_0104_1.png").unlink()
    with pytest.raises(
        DataError, match=r"MCUCXR_0104_1\.png: there is .*leftMask.*no mask of right"
    ):
        make(release).records()
    rest = make(release, on_bad_row="skip")
    assert len(rest.records()) == 11
    assert any("1 rows skipped" in flaw for flaw in rest.info.flaws)


def test_a_mask_of_another_film_or_inverted(tmp_path: Path) -> None:
    release = releases.shenzhen(tmp_path)
    Image.new("L", (60, 64)).save(release.index)
    with pytest.raises(DataError, match=r"CHNCXR_0001_0_mask\.png .*mask is 60x64, image 64x60"):
        lungs(make(release), 0)
    Image.new("L", (64, 60), 255).save(release.index)
    with pytest.raises(DataError, match=r"(?s)covers 100% of the film.*inverted"):
        lungs(make(release), 0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.randoms())
def test_a_mask_of_another_size_covers_the_same(h: int, w: int, k: int, random) -> None:
    """Enlarged k times each pixel is a square of k; shrunk again it is the mask before."""
    mask = np.array([[random.random() < 0.5 for _ in range(w)] for _ in range(h)])
    large = fit_mask(mask, h * k, w * k)
    assert np.array_equal(large, np.kron(mask, np.ones((k, k), bool)))
    assert np.array_equal(fit_mask(large, h, w), mask)


@pytest.mark.parametrize(("row", "inside"), [((1, 0), True), ((1, 0, 0), False), ((1, 1, 0), True)])
def test_half_a_pixel_is_inside(row: tuple[int, ...], inside: bool) -> None:
    assert fit_mask(np.array([row], bool), 1, 1).tolist() == [[inside]]


def test_films_of_one_person_stay_together(tmp_path: Path) -> None:
    dataset = make(releases.montgomery(tmp_path))
    patients = {record.id: record.patient for record in dataset.records()}
    assert patients["MCUCXR_0113_1"] == patients["MCUCXR_0117_1"]
    assert len(set(patients.values())) == len(patients) - 1


# Numbers of Montgomery's films: those without tuberculosis end at 103.
NUMBERS = [*range(1, 7), 8, 11, 13, *range(15, 18), *range(19, 25), *range(26, 32), 35, 38,
           *range(40, 50), *range(51, 65), *range(68, 73), 74, 75, 77, *range(79, 88), *range(89, 93),
           *range(94, 98), *range(99, 105), 108, 113, 117, 126, 140, 141, 142, 144, 150, 162, 166, 170, 173,
           182, 188, 194, 195, 196, 203, 213, 218, 223, 228, 243, 251, 253, 254, 255, 258, 264, 266, 275,
           282, 289, 294, 301, 309, 311, 313, 316, 331, 334, 338, 348, 350, 352, 354, 362, 367, 369, 372,
           375, 383, 387, 390, 393, 399]  # fmt: skip

NUMBERED: dict[str, tuple[type[OrganMaskDataset], list[str]]] = {
    "montgomery": (Montgomery, [f"MCUCXR_{k:04}_{int(k > 103)}" for k in NUMBERS]),
    "shenzhen": (Shenzhen, [f"CHNCXR_{k:04}_{int(k > 326)}" for k in range(1, 663)]),
    "jsrt": (
        JSRT,
        [f"JPCLN{k:03}" for k in range(1, 155)] + [f"JPCNN{k:03}" for k in range(1, 94)],
    ),
}


# Films without and with a finding, as the owners publish them.
PUBLISHED = {"montgomery": (80, 58), "shenzhen": (326, 336), "jsrt": (93, 154)}


@pytest.mark.parametrize("name", NUMBERED)
def test_the_whole_set_has_the_documented_counts_and_splits(tmp_path: Path, name: str) -> None:
    """By the names of the releases' films; no flaw is then seen but the known one."""
    cls, names = NUMBERED[name]
    for film in names:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / f"images/{film}.png").touch()
    for protocol, told in cls.named_splits.items():
        dataset = cls(cls.Config(root=str(tmp_path), splits=protocol))
        assert dataset.info.flaws == told.flaws
        positive = Counter(r.split for r in dataset.records() if r.labels == (1,))
        assert (len(dataset.records()) - positive.total(), positive.total()) == PUBLISHED[name]
        assert told.counts
        for split, count in zip(("train", "val", "test"), told.counts, strict=True):
            share = sum(r.labels == (1,) for r in dataset.records()) / len(names)
            assert abs(positive[split] - share * count) <= 1.5


def test_the_folds_of_scr(tmp_path: Path) -> None:
    """124 films of odd number, 123 of even number, as in the paper."""
    for protocol, parity in (("scr", 0), ("scr-reverse", 1)):
        release = releases.jsrt_png(tmp_path / protocol, protocol)
        for record in make(release).records():
            assert (record.split == "test") == (int(record.id[-1]) % 2 == parity)
    assert sum(JSRT.named_splits["scr"].counts or ()) == 247
    assert (JSRT.named_splits["scr"].counts or ())[2] == 123
    assert (JSRT.named_splits["scr-reverse"].counts or ())[2] == 124


def test_notes_are_neither_read_nor_reported(tmp_path: Path) -> None:
    """Unreadable notes do not matter; no word of them is in records, facts or fingerprint."""
    for build in (releases.montgomery, releases.shenzhen, releases.jsrt_png, releases.jsrt_kaggle):
        release = build(tmp_path / build.__name__)
        dataset = make(release)
        before = dataset.fingerprint()
        notes = list(release.root.rglob("ClinicalReadings/*.txt"))
        for path in notes:
            path.write_bytes(b"\xff\xfe")
        told = repr([(r, r.payload) for r in make(release).records()]) + repr(make(release).info)
        for word in ("54yrs", "apical", "scars", "Doe", "malignant", "lobe"):
            assert word not in told
        if notes:
            assert make(release).fingerprint() == before


def test_rows_of_jsrt_that_run_together(tmp_path: Path) -> None:
    """Line ends of all kinds, a lost one, strange bytes in a diagnosis: the same boxes."""
    release = releases.jsrt_png(tmp_path)
    before = {r.id: r.payload.boxes for r in make(release).records()}
    text = release.index.read_bytes()
    for bad in (
        text.replace(b"\n", b"\r"), text.replace(b"\n", b"\n\n"), text.replace(b"Dr. Doe\n", b"Dr. Doe", 1),
        text.replace(b"apical", b"\x8f\xe3\x8f\xe3"), text.rstrip(b"\n"), text.replace(b"\t", b"  "),
    ):  # fmt: skip
        assert bad != text
        release.index.write_bytes(bad)
        assert {r.id: r.payload.boxes for r in make(release).records()} == before
    release.index.write_bytes(b"a strange line\n" + text)
    with pytest.raises(DataError, match=r"line 1: 'a strange line' is not a row of a nodule"):
        make(release).records()
    assert len(make(release, on_bad_row="skip").records()) == len(before)


def test_a_row_that_its_films_name_contradicts(tmp_path: Path) -> None:
    release = releases.jsrt_kaggle(tmp_path)
    release.index.write_text(release.index.read_text().replace("malignant", "non-nodule", 1))
    with pytest.raises(
        DataError, match=r"line 2: 'JPCLN001' without a nodule contradicts its name"
    ):
        make(release).records()
    rest = make(release, on_bad_row="skip").records()
    assert len(rest) == len(release.labels) - 1


@given(st.floats(0, 2048), st.floats(0, 2048), st.integers(1, 60))
def test_a_box_is_the_size_of_its_nodule(x: float, y: float, size: int) -> None:
    """Side and centre in millimetres, wherever the edge does not cut; a box is never outside."""
    x1, y1, x2, y2 = nodule_box(repr(x), repr(y), str(size), "row")
    assert 0 <= x1 < x2 <= 2048
    assert 0 <= y1 < y2 <= 2048
    assert x1 <= x <= x2
    if 200 < x < 1848 and 200 < y < 1848:
        assert (x2 - x1) * 0.175 == pytest.approx(size)
        assert (y2 - y1) * 0.175 == pytest.approx(size)
        assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((x, y))


@pytest.mark.parametrize(
    "nodule", [("?", "1", "5"), ("1", "-1", "5"), ("1", "1", "0"), ("1", "1", "nan")]
)
def test_impossible_nodules_are_refused(nodule: tuple[str, str, str]) -> None:
    with pytest.raises(DataError, match=r"row: a nodule of .* is not in a film"):
        nodule_box(*nodule, "row")


def test_the_first_nodule_of_the_release() -> None:
    """JPCLN001: 15 mm at 1634, 692: 85.7 pixels a side, in the left lung, hence right in the image."""
    assert nodule_box("1634", "692", "15", "row") == pytest.approx(
        (1591.14, 649.14, 1676.86, 734.86), abs=0.01
    )
