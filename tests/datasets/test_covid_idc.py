"""COVID-19 Image Data Collection: findings in both spellings, views, real films, bad rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from ecamp.audit.dataset import audit_dataset
from ecamp.datasets.covid_idc import CLASSES, CovidIDC, parse_finding
from ecamp.errors import DataError
from tests.datasets.releases import covid_idc, lines


def make(root: Path, **options: Any) -> CovidIDC:
    return CovidIDC(CovidIDC.Config(root=str(root), **options))


@pytest.mark.parametrize(
    ("finding", "kind"),
    [
        ("COVID-19", 2), ("COVID-19, ARDS", 2), ("Pneumonia/Viral/COVID-19", 2), ("No Finding", 0),
        ("Pneumonia", 1), ("SARS", 1), ("Pneumonia/Viral/Herpes ", 1), ("Pneumonia/Aspiration", 1),
        ("Mycoplasma Bacterial Pneumonia", 1), ("Pneumonia/Fungal/Pneumocystis", 1),
        ("todo", None), ("Unknown", None), ("ARDS", None), ("Tuberculosis", None),
    ],
)  # fmt: skip
def test_classes_of_findings(finding: str, kind: int | None) -> None:
    assert parse_finding(finding, "row") == (None if kind is None else CLASSES[kind])


@pytest.mark.parametrize("finding", ["", "/", "COVID", "Pneumonia/Viral/COVID-91", "covid-19"])
def test_words_that_are_not_a_finding_are_named(finding: str) -> None:
    """A slip must not become another pneumonia."""
    with pytest.raises(DataError, match=r"row: unknown finding '.*'"):
        parse_finding(finding, "row")


def test_views_and_classes(tmp_path: Path) -> None:
    release = covid_idc(tmp_path)
    three = make(release.root, classes=3)
    assert three.info.labels == CLASSES
    assert three.info.label_kind == "multiclass"
    assert three.info.version == "ecamp+3-classes"
    labels = {r.id: r.labels for r in three.records()}
    assert labels["41591_Fig1_HTML.webp-day9.png"] == (1, 0, 0)
    assert labels.keys() - release.labels.keys() == {"41591_Fig1_HTML.webp-day9.png"}
    for name, (label,) in release.labels.items():
        assert labels[name] == ((0, 0, 1) if label else (0, 1, 0))
    every = make(release.root, views="all")
    assert {r.id for r in every.records()} - release.labels.keys() == {"a-2020_01_28-L.jpeg"}
    assert every.info.split_id == "covid-idc/ecamp+all-views"
    patients: dict[str, set[str]] = {}
    for record in every.records():
        patients.setdefault(record.patient, set()).add(record.split)
    assert all(len(splits) == 1 for splits in patients.values())


def test_notes_about_patients_are_not_read(tmp_path: Path) -> None:
    release = covid_idc(tmp_path)
    assert not any(r.report or "65-year" in repr(r) for r in make(release.root).records())
    text = release.index.read_text().replace("clinical_notes", "removed").replace("-year-old", "")
    release.index.write_text(text)
    assert {r.id: r.labels for r in make(release.root).records()} == release.labels


BAD = {
    "finding": (",SARS,", ",SRAS,", r"metadata\.csv line 9: unknown finding 'SRAS'"),
    "patient": ("\n9,", "\n,", r"metadata\.csv line 14: no patientid"),
    "file": (",plain.png,", ",,", r"metadata\.csv line 14: no filename"),
    "outside": (",images,plain", ",../images,plain", r"line 14: '\.\./images/plain\.png' is outside"),
    "fields": ("9,0,M,65,Pneumonia,", "9,0,Pneumonia,", r"line 14: 11 fields, the header has 12"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_a_bad_row_is_named_and_can_be_left_out(tmp_path: Path, case: tuple[str, str, str]) -> None:
    good, bad, message = case
    release = covid_idc(tmp_path)
    text = release.index.read_text()
    assert good in text
    release.index.write_text(text.replace(good, bad, 1))
    with pytest.raises(DataError, match=message):
        make(release.root).records()
    rest = make(release.root, on_bad_row="skip")
    assert len(rest.records()) == len(release.labels) - 1
    assert any(flaw.startswith("1 rows skipped") for flaw in rest.info.flaws)


# --- real films -----------------------------------------------------------------------------------

# Groups that the keepers of these films folded the findings to -> our class.
GROUPS = {"viral_covid19": 2, "no_finding": 0, "unlabelled": None, "ards_unspecified": None}


@pytest.fixture(scope="module")
def real(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a release from a part of the collection, with its names and columns."""
    root = tmp_path_factory.mktemp("idc")
    (root / "images").mkdir()
    rows = []
    with (shared_data / "covid_cxr/manifest.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = row["source_filename"]
            (root / "images" / name).symlink_to(shared_data / "covid_cxr" / row["image"])
            finding = f'"{row["finding"]}"'
            about = (row["source_patientid"], finding, row["view"], "X-ray", "images", f'"{name}"')
            rows.append((",".join(about), row["group"], row["patient_id"], name))
    header = "patientid,finding,view,modality,folder,filename"
    lines(root / "metadata.csv", [header, *(row for row, *_ in rows)])
    lines(root / "groups.csv", ["group,person,name", *(f'{g},{p},"{n}"' for _, g, p, n in rows)])
    return root


def test_real_films(real: Path) -> None:
    with (real / "groups.csv").open(encoding="utf-8", newline="") as file:
        groups = {row["name"]: (row["group"], row["person"]) for row in csv.DictReader(file)}
    expected = {name: GROUPS.get(group, 1) for name, (group, _) in groups.items()}
    assert len(expected) == 204
    three = {r.id: r.labels for r in make(real, classes=3).records()}
    assert three == {
        name: tuple(int(k == kind) for k in range(3))
        for name, kind in expected.items() if kind is not None
    }  # fmt: skip
    dataset = make(real)
    records = dataset.records()
    assert {r.id: r.labels for r in records} == {
        name: (kind - 1,) for name, kind in expected.items() if kind
    }
    # Four persons have two ids in the source, one of them on films that nobody labelled yet.
    homes: dict[str, set[str]] = {}
    for record in records:
        homes.setdefault(groups[record.id][1], set()).add(record.split)
    assert all(len(splits) == 1 for splits in homes.values())
    for record in records[:10]:
        image = dataset.load(record, 64).image
        assert min(image.shape[:2]) > 100
        assert image.std() > 10
    assert not [f for f in audit_dataset(dataset, images=False) if f.severity == "leak"]
