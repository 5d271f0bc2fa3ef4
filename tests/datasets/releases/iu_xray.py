"""IU X-ray: Kaggle's tables, R2Gen's annotation and Open-i's own files, small."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from tests.datasets.releases.release import Release, paint

# uid -> MeSH, findings, impression, films (frontal first); 4 and 8 have one text, 6 has none
IU_STUDIES: dict[str, tuple[str, str, str, list[str]]] = {
    "1": ("normal", "Lungs are clear.", "Normal chest x-XXXX.", ["1_IM-0001-4001", "1_IM-0001-3001"]),
    "2": ("Cardiomegaly/borderline;Pulmonary Artery/enlarged", "Borderline cardiomegaly.",
          "No acute findings.", ["2_IM-0652-1001", "2_IM-0652-2001"]),
    "4": ("Nodule/lung/lingula;Fractures, Bone/ribs", "A nodule, and a rib fracture.", "",
          ["4_IM-2050-1001", "4_IM-2050-2001"]),
    "5": ("No Indexing", "", "The heart is XXXX.", ["5_IM-2117-1003002"]),
    "6": ("Opacity/lung/base/left", "", "", ["6_IM-2192-1001", "6_IM-2192-2001"]),
    "7": ("Infiltrate/lung/lower lobe/right;Pleural Effusion/right/small",
          'Infiltrate in the "right" base.', "Small effusion.", ["7_IM-2263-1001", "7_IM-2263-2001"]),
    "8": ("normal", "A nodule,  and a rib fracture. ", "", ["8_IM-2333-1001", "8_IM-2333-2001"]),
    "10": ("Technical Quality of Image Unsatisfactory ;Scoliosis", "Scoliosis.", "Rotated.",
           ["10_IM-0002-1001", "10_IM-0002-2001"]),
}  # fmt: skip
# In the order of Airspace, Atelectasis, Granuloma, Cardiomegaly, Congestion, Effusion, Emphysema,
# Fracture, Nodule, Opacity, Scar
IU_LABELS: dict[str, tuple[int | None, ...]] = {
    "1": (0,) * 11, "2": (0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0), "4": (0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0),
    "5": (None,) * 11, "6": (0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0), "7": (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0),
    "8": (0,) * 11, "10": (0,) * 11,
}  # fmt: skip
IU_SPLITS = {"1": "train", "2": "train", "4": "train", "7": "val", "8": "test", "10": "test"}


def _table(path: Path, rows: list[list[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def iu_kaggle(tmp: Path) -> Release:
    root = tmp / "iu"
    films = [["uid", "filename", "projection"]]
    columns = "uid,MeSH,Problems,image,indication,comparison,findings,impression"
    reports = [columns.split(",")]
    labels = {}
    for uid, (mesh, findings, impression, names) in IU_STUDIES.items():
        problems = ";".join(entry.split("/")[0] for entry in mesh.split(";"))
        about = [uid, mesh, problems, "Xray Chest", "pain, XXXX", "None."]
        reports.append([*about, findings, impression])
        labels[f"{names[0]}.dcm.png"] = IU_LABELS[uid]
        for name in reversed(names):
            films.append([uid, f"{name}.dcm.png", "Frontal" if name == names[0] else "Lateral"])
            paint(root / f"images/images_normalized/{name}.dcm.png", seed=len(films))
    _table(root / "indiana_reports.csv", reports)
    return Release("iu-xray", root, _table(root / "indiana_projections.csv", films), labels)


def iu_split_table(tmp: Path) -> Release:
    """Kaggle's files with R2Gen's split as a table; studies that it leaves out are left out."""
    release = iu_kaggle(tmp)
    rows = [[uid, f"CXR{IU_STUDIES[uid][3][0][:-5]}", split] for uid, split in IU_SPLITS.items()]
    _table(release.root / "r2gen_split.csv", [["uid", "r2gen_id", "r2gen_split"], *rows])
    films = {f"{IU_STUDIES[uid][3][0]}.dcm.png": split for uid, split in IU_SPLITS.items()}
    release.labels = {name: release.labels[name] for name in films}
    release.options, release.splits = {"splits": "r2gen"}, set(films.items())
    return release


def iu_r2gen(tmp: Path) -> Release:
    """R2Gen's copy: every examination has a 0.png and a 1.png."""
    root = tmp / "iu_xray"
    lists: dict[str, list[object]] = {"train": [], "val": [], "test": []}
    splits = set()
    for k, (uid, split) in enumerate(IU_SPLITS.items()):
        _, findings, _, names = IU_STUDIES[uid]
        study = f"CXR{names[0].rsplit('-', 1)[0]}"
        paths = [f"{study}/{n}.png" for n in range(2)]
        for n, path in enumerate(paths):
            paint(root / "images" / path, seed=2 * k + n)
            splits.add((path, split))
        lists[split].append({"id": study, "report": findings, "image_path": paths, "split": split})
    index = root / "annotation.json"
    index.write_text(json.dumps(lists))
    labels = {path: None for path, _ in splits}
    return Release("iu-xray", root, index, labels, {"splits": "r2gen"}, splits)  # type: ignore[arg-type]


def iu_xml(tmp: Path) -> Release:
    """Open-i's own files name films after their examination, and no views."""
    root, labels = tmp / "openi", {}
    (root / "ecgen-radiology").mkdir(parents=True)
    for uid, (mesh, findings, impression, names) in IU_STUDIES.items():
        films = [f"CXR{uid}_{name}" for name in names]
        for k, film in enumerate(films):
            labels[f"{film}.png"] = IU_LABELS[uid]
            paint(root / f"NLMCXR_png/{film}.png", seed=7 * int(uid) + k)
        text = "".join(
            f"<AbstractText Label={quoteattr(label)}>{escape(words)}</AbstractText>"
            for label, words in (("COMPARISON", "None."), ("INDICATION", "XXXX"),
                                 ("FINDINGS", findings), ("IMPRESSION", impression))
        )  # fmt: skip
        major = "".join(f"<major>{escape(entry)}</major>" for entry in mesh.split(";"))
        images = "".join(
            f"<parentImage id={quoteattr(film)}><url>/x.jpg</url></parentImage>" for film in films
        )
        path = root / f"ecgen-radiology/{uid}.xml"
        path.write_text(
            f'<?xml version="1.0" encoding="utf-8"?>\n<eCitation><uId id="CXR{uid}"/>'
            f"<MedlineCitation><Abstract>{text}</Abstract></MedlineCitation>"
            f"<MeSH>{major}<automatic>lung</automatic></MeSH>{images}</eCitation>\n"
        )
    return Release("iu-xray", root, root / "ecgen-radiology/1.xml", labels)
