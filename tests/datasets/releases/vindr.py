"""VinDr-CXR: folders of PhysioNet's release and of Kaggle's, DICOM and smaller PNG, small."""

from __future__ import annotations

from pathlib import Path

from tests.datasets.releases.release import Box, Release, lines, paint

# In the order of the columns of image_labels_*.csv.
VINDR_LABELS = [
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture",
    "Consolidation", "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity",
    "Lung cavity", "Lung cyst", "Mediastinal shift", "Nodule/Mass", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture", "Other lesion",
    "COPD", "Lung tumor", "Pneumonia", "Tuberculosis", "Other diseases", "No finding",
]  # fmt: skip
VINDR_KAGGLE = [
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD",
    "Infiltration", "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion",
    "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis",
]  # fmt: skip
WIDTH, HEIGHT = 96, 80  # of the films, wider than high: swapped axes show
Drawn = dict[str, list[tuple[str, Box]]]  # radiologist -> class and box

# Boxes of each of three radiologists; below, by hand, those on which two of them agree.
VINDR_DRAWN: dict[str, Drawn] = {
    # one heart by all three, moved by two pixels; a nodule by one alone
    "0a01": {"R8": [("Cardiomegaly", (20, 40, 70, 60)), ("Nodule/Mass", (4, 4, 10, 12))],
             "R9": [("Cardiomegaly", (22, 40, 72, 60))], "R10": [("Cardiomegaly", (24, 40, 74, 60))]},
    # two agree, the third sees nothing; two boxes of one radiologist are two findings
    "0a02": {"R8": [("Pleural effusion", (0, 60, 30, 80)), ("Pleural effusion", (60, 60, 96, 80))],
             "R9": [("Pleural effusion", (0, 64, 30, 80))], "R10": []},
    # each names another one: no label at all, and no `No finding`
    "0a03": {"R1": [("ILD", (8, 8, 40, 40))], "R2": [("Infiltration", (8, 8, 40, 40))],
             "R3": [("Consolidation", (8, 8, 40, 40))]},
    # two see nothing
    "0a04": {"R1": [("Pneumothorax", (2, 2, 30, 20))], "R2": [], "R3": []},
    # one finding in two places: they agree upon the label, not upon a box
    "0a05": {"R1": [("Calcification", (10, 10, 20, 18))], "R2": [("Calcification", (60, 30, 72, 36))],
             "R3": []},
    **{f"0a{k:02}": {"R5": [], "R6": [], "R7": []} for k in range(6, 15)},
}  # fmt: skip
VINDR_AGREED: dict[str, list[tuple[str, Box]]] = {
    "0a01": [("Cardiomegaly", (22.0, 40.0, 72.0, 60.0))],
    "0a02": [("Pleural effusion", (0.0, 62.0, 30.0, 80.0))],
}
VINDR_NAMED = {"0a01": ["Cardiomegaly"], "0a02": ["Pleural effusion"], "0a03": [],
               "0a05": ["Calcification"]}  # fmt: skip
VINDR_TEST: dict[str, list[tuple[str, Box]]] = {
    "0b01": [("Lung Opacity", (40.0, 8.0, 80.0, 24.0)), ("Lung Opacity", (44.0, 8.0, 84.0, 24.0))],
    "0b02": [],
    "0b03": [("Rib fracture", (70.0, 50.0, 90.0, 56.0))],
}


def _agreed() -> dict[str, list[Box]]:
    return {name: [box for _, box in VINDR_AGREED.get(name, [])] for name in VINDR_DRAWN}


def vindr_official(tmp: Path) -> Release:
    """PhysioNet's; the test names its last label but one otherwise, and no radiologists."""
    root = tmp / "vindr-cxr"
    boxes = _agreed()
    boxes |= {name: [box for _, box in drawn] for name, drawn in VINDR_TEST.items()}
    for k, (name, areas) in enumerate(boxes.items()):
        part = "train" if name in VINDR_DRAWN else "test"
        paint(root / f"{part}/{name}.dicom", areas, (WIDTH, HEIGHT), seed=k)
    labels = [",".join(["image_id,rad_id", *VINDR_LABELS])]
    rows = ["image_id,rad_id,class_name,x_min,y_min,x_max,y_max"]
    for name, readers in VINDR_DRAWN.items():
        for reader, drawn in readers.items():
            named = {kind for kind, _ in drawn} | ({"COPD"} if name == "0a02" and drawn else set())
            labels.append(f"{name},{reader},{_bits(named or {'No finding'})}")
            rows += [f"{name},{reader},{kind},{_corners(box)}" for kind, box in drawn]
            rows += [] if drawn else [f"{name},{reader},No finding,,,,"]
    annotations = root / "annotations"
    index = lines(annotations / "image_labels_train.csv", labels)
    lines(annotations / "annotations_train.csv", rows)
    labels = [",".join(["image_id", *VINDR_LABELS]).replace("Other diseases", "Other disease")]
    rows = ["image_id,class_name,x_min,y_min,x_max,y_max"]
    for name, drawn in VINDR_TEST.items():
        named = {kind for kind, _ in drawn} | ({"Other diseases"} if name == "0b03" else set())
        labels.append(f"{name},{_bits(named or {'No finding'})}")
        rows += [f"{name},{kind},{_corners(box)}" for kind, box in drawn]
        rows += [f"{name},Other disease,,,,"] if name == "0b03" else []
        rows += [] if drawn else [f"{name},No finding,,,,"]
    lines(annotations / "image_labels_test.csv", labels)
    lines(annotations / "annotations_test.csv", rows)
    expected = {name: set(VINDR_NAMED.get(name, ["No finding"])) for name in VINDR_DRAWN}
    expected["0a02"].add("COPD")
    expected |= {n: {kind for kind, _ in d} or {"No finding"} for n, d in VINDR_TEST.items()}
    expected["0b03"].add("Other diseases")
    return Release(
        "vindr-cxr", root, index,
        {n: tuple(int(label in named) for label in VINDR_LABELS) for n, named in expected.items()},
        boxes=boxes, bright="boxes",
    )  # fmt: skip


def vindr_kaggle(tmp: Path) -> Release:
    """Kaggle's: one table, fourteen classes, 14 = nothing found."""
    root = tmp / "vinbigdata"
    boxes = _agreed()
    for k, (name, areas) in enumerate(boxes.items()):
        paint(root / f"train/{name}.dicom", areas, (WIDTH, HEIGHT), seed=k)
    return _kaggle(root, boxes)


def vindr_kaggle_png(tmp: Path) -> Release:
    """PNG of another size and shape: each side has its own factor; the size of the film is in a table."""
    root = tmp / "vinbigdata-png"
    width, height = 64, 48
    sizes = ["image_id,dim0,dim1", *(f"{name},{HEIGHT},{WIDTH}" for name in VINDR_DRAWN)]
    lines(root / "train_meta.csv", sizes)
    fx, fy = width / WIDTH, height / HEIGHT
    boxes = {
        name: [(x1 * fx, y1 * fy, x2 * fx, y2 * fy) for x1, y1, x2, y2 in areas]
        for name, areas in _agreed().items()
    }
    for k, (name, areas) in enumerate(boxes.items()):
        paint(root / f"train/{name}.png", areas, (width, height), seed=k)
    return _kaggle(root, boxes)


def _kaggle(root: Path, boxes: dict[str, list[Box]]) -> Release:
    rows = ["image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"]
    for name, readers in VINDR_DRAWN.items():
        for reader, drawn in readers.items():
            for kind, box in drawn:
                rows.append(f"{name},{kind},{VINDR_KAGGLE.index(kind)},{reader},{_corners(box)}")
            rows += [] if drawn else [f"{name},No finding,14,{reader},,,,"]
    labels: dict[str, tuple[int | None, ...]] = {
        name: tuple(int(kind in VINDR_NAMED.get(name, [])) for kind in VINDR_KAGGLE)
        for name in VINDR_DRAWN
    }
    index = lines(root / "train.csv", rows)
    return Release(
        "vindr-cxr", root, index, labels, {"splits": "kaggle"}, boxes=boxes, bright="boxes"
    )


def _bits(named: set[str]) -> str:
    return ",".join(str(int(label in named)) for label in VINDR_LABELS)


def _corners(box: Box) -> str:
    return ",".join(str(float(v)) for v in box)
