"""COVID-19 Image Data Collection: its folder, small, with findings as words and as paths."""

from __future__ import annotations

from pathlib import Path

from tests.datasets.releases.release import Release, lines, paint

COLUMNS = "patientid,offset,sex,age,finding,view,modality,folder,filename,license,clinical_notes,other_notes,"
# patient, finding, view, modality, folder, file, label (None = not read)
IDC_FILMS = [
    ("2", "Pneumonia/Viral/COVID-19", "PA", "X-ray", "images", "a-2020_01_28.jpeg", 1),
    ("2", "Pneumonia/Viral/COVID-19", "L", "X-ray", "images", "a-2020_01_28-L.jpeg", None),
    ("2", "Pneumonia/Viral/COVID-19", "Axial", "CT", "volumes", "coronacases_org_001.nii.gz", None),
    ("4", "COVID-19, ARDS", "AP Supine", "X-ray", "images", "41591_Fig1_HTML.webp-day5.png", 1),
    ("4", "No Finding", "PA", "X-ray", "images", "41591_Fig1_HTML.webp-day9.png", None),
    ("5", "ARDS", "PA", "X-ray", "images", "ARDSSevere.png", None),
    ("6", "COVID-19", "AP", "X-ray", "images", "caso-70-2-APS.jpg ", 1),
    ("3", "SARS", "PA", "X-ray", "images", "SARS-10.1148rg-Fig8a.jpeg", 0),
    ("3", "SARS", "PA", "X-ray", "images", "SARS-10.1148rg-Fig8b.jpeg", 0),
    ("313a", "Pneumonia/Bacterial/Staphylococcus/MRSA", "PA", "X-ray", "images", "x (1).jpg", 0),
    ("313b", "Pneumonia/Viral/Herpes ", "AP Erect", "X-ray", "images", "1-s2.0-S0140.gr1.jpg", 0),
    ("8", "Mycoplasma Bacterial Pneumonia", "PA", "X-ray", "images", "myco.png", 0),
    ("9", "Pneumonia", "PA", "X-ray", "images", "plain.png", 0),
    ("12", "Tuberculosis", "PA", "X-ray", "images", "tb.jpg", None),
    ("13", "todo", "PA", "X-ray", "images", "01E392EE.jpeg", None),
    ("14", "Unknown", "PA", "X-ray", "images", "05B7F4A2.jpeg", None),
    ("15", "COVID-19", "PA", "X-ray", "images", "16654_2.jpeg", 1),
]


def covid_idc(tmp: Path) -> Release:
    root, rows = tmp / "covid-chestxray-dataset", []
    for k, (patient, finding, view, modality, folder, file, _) in enumerate(IDC_FILMS):
        shown = f'"{finding}"' if "," in finding else finding
        notes = '"A 65-year-old, admitted."'
        rest = "rest of a note" if k == 2 else ""  # in the column without a name
        about = f"{patient},0,M,65,{shown},{view},{modality},{folder},{file}"
        rows.append(f"{about},CC BY,{notes},,{rest}")
        if modality == "X-ray":
            paint(root / folder / file.strip(), seed=k)
    index = lines(root / "metadata.csv", [COLUMNS, *rows])
    labels: dict[str, tuple[int | None, ...]] = {
        file.strip(): (label,) for *_, file, label in IDC_FILMS if label is not None
    }
    return Release("covid-idc", root, index, labels)
