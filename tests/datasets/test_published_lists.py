"""The published list files in exactly their forms; traps of each; bad rows named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecamp.audit.published_lists import split_lists
from ecamp.datasets.published_lists import (
    group_by_image,
    list_files,
    patient_of,
    read_list,
    read_lists,
)
from ecamp.errors import DataError, EcampError, MissingError


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_labels_with_any_white_space(tmp_path: Path) -> None:
    """CheXpert's and RSNA's rows end in a space; SpineXR's file lacks the last line break."""
    path = write(
        tmp_path, "train_list_10.txt",
        "train/patient57997/study1/view1_frontal.jpg 0 1 0 1 1 \r\n\n"
        "images_006/00011997_000.png\t0 0  0 0 1",
    )  # fmt: skip
    read = read_list(path, "train", 10)
    assert read.form == "labels"
    assert read.name == "train_10"
    assert [row.labels for row in read.rows] == [(0, 1, 0, 1, 1), (0, 0, 0, 0, 1)]
    assert [row.patient for row in read.rows] == ["patient57997", "00011997"]
    assert [row.line for row in read.rows] == [1, 3]


CORNERS = st.tuples(*[st.integers(0, 500)] * 2, *[st.integers(501, 1024)] * 2)


@given(boxes=st.lists(CORNERS, min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_boxes_come_back_from_every_form(
    tmp_path: Path, boxes: list[tuple[int, int, int, int]]
) -> None:
    """Corners as a list, x;y;width;height joined by bars, COCO json: the same boxes."""
    corners = str([[float(v) for v in box] for box in boxes])
    sides = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]
    bars = "|".join(";".join(map(str, side)) for side in sides)
    coco = {
        "images": [{"id": 7, "file_name": "/mnt/elsewhere/a.png"}],
        "categories": [{"id": 0, "name": "none"}, {"id": 1, "name": "some"}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": side} for side in sides],
    }
    for name, text in (
        ("train.csv", f'image_path,bbox\na.png,"{corners}"\n'),
        ("val.csv", f'patientId,bbox,Target\na,"{corners}",1\n'),
        ("validation.csv", f"ID,boxes,classes\na,{bars},{'|'.join('1' for _ in boxes)}\n"),
        ("rsna_test_coco_format.json", json.dumps(coco)),
    ):
        (row,) = read_list(write(tmp_path, name, text), "test").rows
        assert row.boxes == tuple(tuple(map(float, box)) for box in boxes)
    names = {path.name: what for path, what in list_files(tmp_path)}
    assert names["rsna_test_coco_format.json"] == ("test", 100)
    assert names["validation.csv"] == ("val", 100)


def test_classes_of_mgca(tmp_path: Path) -> None:
    text = "filename,class,labels\na (1).png,COVID-19,2\nb.png,normal,0\n"
    read = read_list(write(tmp_path, "valid.csv", text), "val")
    assert read.form == "classes"
    assert [(r.image, r.word, r.labels) for r in read.rows] == [
        ("a (1).png", "COVID-19", (2,)), ("b.png", "normal", (0,)),
    ]  # fmt: skip
    listings, exclusive = split_lists([read])
    assert exclusive
    assert [item.labels for item in listings[0].items] == [(0, 0, 1), (1, 0, 0)]


def test_a_list_of_ids_has_no_labels(tmp_path: Path) -> None:
    read = read_list(write(tmp_path, "test.txt", "00011997_000.png\n00011997_001.png\n"), "test")
    assert read.form == "ids"
    assert [row.labels for row in read.rows] == [None, None]


def test_covidx_rows_with_spaces_and_dots_in_names(tmp_path: Path) -> None:
    text = "12 a.b c (1).jpg COVID-19 cohen\nsub-S03 x.JPG normal rsna\n"
    rows = read_list(write(tmp_path, "test.txt", text), "test").rows
    assert [(r.image, r.patient) for r in rows] == [("a.b c (1).jpg", "12"), ("x.JPG", "sub-S03")]


def test_boxes(tmp_path: Path) -> None:
    text = (
        "\ufeffimage_path,bbox\n"
        'train_images/a.png,"[[296.0, 297.0, 482.0, 478.0], [606.0, 256.0, 841.0, 611.0]]"\n'
        'train_images/b.png,"[[0.0, 0.0, 0.0, 0.0]]"\n'
        "train_images/c.png,\n"
    )
    rows = read_list(write(tmp_path, "val_list.csv", text), "val").rows
    assert [len(row.boxes or ()) for row in rows] == [2, 0, 0]
    assert rows[0].boxes == ((296.0, 297.0, 482.0, 478.0), (606.0, 256.0, 841.0, 611.0))


@pytest.mark.parametrize("header", ["ImageId,EncodedPixels", "ImageId, EncodedPixels"])
@pytest.mark.parametrize("none", ["-1", " -1"])
def test_run_lengths_with_either_spelling(tmp_path: Path, header: str, none: str) -> None:
    """Kaggle's stage 1 writes ` EncodedPixels` and ` -1`; others write them without the space."""
    text = f"{header}\n1.2.3,10 4 1000 2\n1.2.3,7 1\n1.2.4,{none}\n"
    read = read_list(write(tmp_path, "train.csv", text), "train")
    assert read.form == "rle"
    assert {image: [row.rle for row in rows] for image, rows in group_by_image(read.rows)} == {
        "1.2.3": ["10 4 1000 2", "7 1"], "1.2.4": [""],
    }  # fmt: skip
    (listing,), exclusive = split_lists([read])
    assert not exclusive
    assert [(item.image, item.labels) for item in listing.items] == [
        ("1.2.3", (1,)),
        ("1.2.4", (0,)),
    ]


def test_pairs_chexpert_and_tables(tmp_path: Path) -> None:
    riga = write(
        tmp_path, "a.csv", "img_path,mask_path\nImage/M/image1.tif,FinalLabel/M/image1.tif\n"
    )
    assert read_list(riga, "train").form == "pairs"
    official = write(
        tmp_path,
        "b.csv",
        "Path,Sex,Atelectasis\nCheXpert-v1.0/train/patient1/study1/view1.jpg,F,1\n",
    )
    read = read_list(official, "train")
    assert (read.form, read.rows[0].patient) == ("chexpert", "patient1")
    table = write(tmp_path, "c.csv", "id_code,patient\nx,7\ny,\n")
    assert [row.patient for row in read_list(table, "val").rows] == ["7", None]


def test_a_class_index_becomes_a_column_a_class(tmp_path: Path) -> None:
    write(tmp_path, "train_list.txt", "a.png 4\nb.png 0\n")
    write(tmp_path, "test_list.txt", "c.png 2\n")
    listings, exclusive = split_lists(read_lists(tmp_path))
    assert exclusive
    assert listings[0].items[0].labels == (0, 0, 0, 0, 1)
    assert listings[1].items[0].labels == (0, 0, 1, 0, 0)


def test_a_folder_of_lists_is_found_by_names(tmp_path: Path) -> None:
    for name in (
        "train_list.txt", "train_list_1.txt", "train_list_10.txt", "val_list.txt", "test_list.txt",
        "test_list_600.txt", "README.txt", "siim.csv", "train_list.bak",
    ):  # fmt: skip
        write(tmp_path, name, "a.png 0\n")
    assert [lst.name for lst in read_lists(tmp_path)] == [
        "train_1",
        "train_10",
        "train",
        "val",
        "test",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.txt", "a.png 0 1\nb.png 0\n", "line 2: 1 labels, line 1 has 2"),
        ("train.txt", "a.png 0\nb.png x\n", "line 2"),
        ("train.txt", "a.png zero one\n", "line 1: unknown form"),
        ("train.txt", "p a.png COVID-19 cohen\np b.png\n", "line 2: 2 words"),
        ("train.csv", "image_path,bbox\na.png\n", "line 2: 1 fields, the header has 2"),
        ("train.csv", 'image_path,bbox\na.png,"[[1, 2, 3]]"\n', "line 2: not a list of boxes"),
        ("train.csv", 'image_path,bbox\na.png,"__import__(1)"\n', "line 2: not a list of boxes"),
        ("train.csv", "colour,taste\nred,sour\n", "no column with the name of the image"),
        ("train.txt", "", "no rows"),
        ("train.txt", "\xff", "a"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path, name, text)
    if text == "\xff":
        path.write_bytes(b"\xff\xfe\x00")
        message = "not UTF-8"
    with pytest.raises(DataError, match=message) as caught:
        read_list(path, "train")
    assert str(path) in str(caught.value)


def test_a_folder_without_lists_is_described(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such folder"):
        read_lists(tmp_path / "nothing")
    write(tmp_path, "notes.md", "x")
    with pytest.raises(EcampError, match=r"found notes\.md"):
        read_lists(tmp_path)


@pytest.mark.parametrize(
    ("image", "patient"),
    [
        ("images_006/00011997_000.png", "00011997"), ("00011997_000.png", "00011997"),
        ("valid/patient64541/study1/view1_frontal.jpg", "patient64541"),
        ("1085_left.jpg", "1085"), ("1085_RIGHT.jpg", "1085"),
        ("files/p10/p10000032/s50414267/x.jpg", "p10000032"),
        ("train/A000001-01-25-1901-NA-CHEST_AP-1-1.0-AP.jpg", "A000001"),
        ("MIDRC-RICORD-1C-000000-000001-12345-0.png", "MIDRC-RICORD-1C-000000-000001"),
        ("train/sub-S00001_ses-E00001_run-1_bp-chest_vp-ap_dx.png", "sub-S00001"),
        ("aria_c_28_19.tif", None), ("0_test_1_.png", None),
    ],
)  # fmt: skip
def test_patients_from_published_names(image: str, patient: str | None) -> None:
    assert patient_of(image) == patient
