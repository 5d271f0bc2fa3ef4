"""Radiology reports in varied language from the findings of a film.

Sentences are made from templates; `{s}` is severity, `{d}` side, `{z}` zone. Reports are true: a positive
finding is named unless it was missed (`Finding.stated`), and only absent findings are denied. Brackets
mark the entities of a sentence (`marked_text.py`) and are not part of the report.
"""

from __future__ import annotations

import numpy as np

from ecamp.api.distiller import Statement
from ecamp.datasets.phantom.deterministic_math import chance
from ecamp.datasets.phantom.findings import FINDINGS, Finding
from ecamp.datasets.phantom.marked_text import parse_marked_report, set_polarity

SEVERITY = {
    1: ("mild", "small", "minimal", "subtle"),
    2: ("moderate", "moderate sized"),
    3: ("large", "severe", "extensive", "marked"),
}
NAMES = {
    "nodule": ("[nodule]", "[pulmonary nodule|nodule]", "[nodular|nodule] [opacity]", "rounded [nodule]"),
    "mass": ("[mass]", "[lung mass|mass]", "lobulated [mass]", "[mass lesion|mass]"),
    "consolidation": ("[consolidation]", "[airspace opacity|consolidation]",
                      "[airspace disease|consolidation]", "[infiltrate]", "focal [consolidation]"),
    "effusion": ("[pleural effusion|effusion]", "[effusion]", "[pleural fluid collection|effusion]"),
    "pneumothorax": ("[pneumothorax]", "apical [pneumothorax]"),
    "cardiomegaly": ("[cardiomegaly]", "[enlargement of the cardiac silhouette|cardiomegaly]"),
    "atelectasis": ("[atelectasis]", "linear [atelectasis]", "plate like [atelectasis]",
                    "subsegmental [atelectasis]"),
    "oedema": ("[pulmonary edema|edema]", "interstitial [edema]",
               "[pulmonary vascular congestion|congestion]", "perihilar [edema]"),
}  # fmt: skip
PLURAL = {
    "effusion": ("[pleural effusions|effusion]", "[effusions|effusion]"),
    "oedema": ("[pulmonary edema|edema]", "perihilar [opacities|opacity] of [edema]"),
}
PRESENT = (
    "There is a {s} {d} {z} {n}.",
    "There is {s} {n} in the {d} {z}.",
    "{S} {n} is seen in the {d} {z}.",
    "A {s} {n} is present in the {d} {z}.",
    "{S} {d} {z} {n} is noted.",
    "The {d} {z} shows a {s} {n}.",
    "In the {d} {z} there is {s} {n}.",
    "{D} {z} {n}, {s} in extent.",
)
HEDGED = (
    "There may be a {s} {d} {z} {n}.",
    "Possible {s} {n} in the {d} {z}.",
    "A {s} {n} in the {d} {z} cannot be excluded.",
    "Findings suspicious for {s} {d} {z} {n}.",
)
SIDED = {
    "effusion": (
        "There is a {s} {d} [pleural effusion|effusion].",
        "Blunting of the {d} costophrenic angle is consistent with {s} [pleural effusion|effusion].",
        "{S} {d} [pleural effusion|effusion] is present.",
        "{S} {d} sided [effusion] with a meniscus along the chest wall.",
        "Layering {s} {d} [pleural fluid collection|effusion].",
    ),
    "pneumothorax": (
        "There is a {s} {d} [pneumothorax].",
        "{S} {d} apical [pneumothorax] is seen.",
        "A pleural line is visible on the {d}, consistent with {s} [pneumothorax].",
        "{S} {d} sided [pneumothorax] without [-mediastinal|cardiomediastinal] shift.",
    ),
    "cardiomegaly": (
        "There is {s} [cardiomegaly].",
        "The [cardiac silhouette is enlarged|cardiomegaly], {s}.",
        "{S} [enlargement of the cardiac silhouette|cardiomegaly].",
        "The [heart is enlarged|cardiomegaly] with {s} [cardiomegaly].",
        "[Heart size|cardiomegaly] is above normal limits, {s} [cardiomegaly].",
    ),
    "oedema": (
        "There is {s} [pulmonary edema|edema].",
        "{S} bilateral perihilar [opacities|opacity] are consistent with [pulmonary edema|edema].",
        "Perihilar haze and septal lines indicate {s} interstitial [edema].",
        "{S} [pulmonary vascular congestion|congestion] with [edema].",
    ),
}
DENIED = (
    "No {n}.",
    "There is no {n}.",
    "There is no evidence of {n}.",
    "No evidence of {n} is seen.",
    "Without {n}.",
)
DENY_NAMES = {
    "nodule": ("[-pulmonary nodule|nodule]", "suspicious [-nodule]"),
    "mass": ("[-mass]", "[-lung mass|mass]"),
    "consolidation": (
        "focal [-consolidation]",
        "[-airspace disease|consolidation]",
        "[-consolidation]",
    ),
    "effusion": ("[-pleural effusion|effusion]", "[-effusion]"),
    "pneumothorax": ("[-pneumothorax]",),
    "cardiomegaly": ("[-cardiomegaly]",),
    "atelectasis": ("[-atelectasis]",),
    "oedema": ("[-pulmonary edema|edema]", "[-vascular congestion|congestion]"),
}
NORMAL = {
    "heart": ("The [-heart size|cardiomegaly] is normal.",
              "[-Heart size|cardiomegaly] and [-mediastinal|cardiomediastinal] [-contour] are within normal"
              " limits.",
              "The [-cardiac silhouette|cardiomegaly,silhouette] is normal in size.",
              "[-Cardiomediastinal] [-contours|contour] are unremarkable."),
    "lungs": ("The lungs are clear.", "Both lungs are well [-expanded|aerate] and clear.",
              "Lungs are clear bilaterally.", "The lung fields are clear."),
    "bones": ("The osseous structures are intact.", "No acute bony [-abnormality].",
              "Bony structures are unremarkable.", "Degenerative changes of the spine."),
    "other": ("The trachea is midline.", "The [-hilar] [-contours|contour] are normal.",
              "The visualized upper abdomen is unremarkable.", "Lung volumes are adequate."),
}  # fmt: skip
INDICATION = ("Cough.", "Shortness of breath.", "Chest pain.", "Fever.", "Preoperative evaluation.",
              "Follow up.", "Dyspnea on exertion.", "Trauma.")  # fmt: skip
CLEAR = ("No acute cardiopulmonary [-abnormality].", "No [-acute findings|abnormality].",
         "Normal chest radiograph.", "No [-acute cardiopulmonary process|abnormality].",
         "Unremarkable examination of the chest.")  # fmt: skip
COMPARISON = ("unchanged from the prior study", "new since the prior study",
              "increased since the prior study", "decreased since the prior study")  # fmt: skip


def pick(rng: np.random.Generator, items: tuple[str, ...]) -> str:
    """Draw one item uniformly."""
    return items[int(rng.integers(0, len(items)))]


def write_report(
    rng: np.random.Generator, findings: tuple[Finding, ...], before: tuple[Finding, ...] | None
) -> tuple[str, tuple[Statement, ...]]:
    """Write the report of one study.

    Args:
        findings: Of this study.
        before: Findings of the patient's previous study; None for the first.

    Returns:
        ASCII text with the sections FINDINGS and IMPRESSION, sometimes INDICATION before them; and
        its statements in text order.
    """
    parts = []
    if chance(rng, 0.5):
        parts.append(("INDICATION: ", pick(rng, INDICATION)))
    stated = [f for f in findings if f.stated]
    body = _findings(rng, findings, stated, before)
    parts.append(("FINDINGS: ", " ".join(body)))
    parts.append(("IMPRESSION: ", _impression(rng, stated)))
    return parse_marked_report(parts, " ")


def _findings(
    rng: np.random.Generator,
    findings: tuple[Finding, ...],
    stated: list[Finding],
    before: tuple[Finding, ...] | None,
) -> list[str]:
    present = {f.name for f in findings}
    sentences = [_positive(rng, f, stated, before) for f in _distinct(stated)]
    if "cardiomegaly" not in present:
        sentences.append(pick(rng, NORMAL["heart"]))
    lungs = {"nodule", "mass", "consolidation", "atelectasis", "oedema"}
    if not present & lungs and chance(rng, 0.8):
        sentences.append(pick(rng, NORMAL["lungs"]))
    absent = [name for name in FINDINGS if name not in present]
    kept = [name for name in absent if chance(rng, 0.45)]
    while kept:
        if len(kept) >= 2 and chance(rng, 0.6):
            names = [pick(rng, DENY_NAMES[name]) for name in kept[:3]]
            kept = kept[3:]
            listed = ", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0]
        else:
            listed = pick(rng, DENY_NAMES[kept.pop(0)])
        sentences.append(pick(rng, DENIED).format(n=listed))
    sentences += [pick(rng, NORMAL[k]) for k in ("bones", "other") if chance(rng, 0.5)]
    order = rng.permutation(len(sentences)) if chance(rng, 0.5) else range(len(sentences))
    return [sentences[int(i)] for i in order]


def _distinct(findings: list[Finding]) -> list[Finding]:
    """Keep one finding per name and side; one sentence describes both sides of a bilateral one."""
    seen: set[str] = set()
    out = []
    for finding in findings:
        if finding.name in ("effusion", "oedema") and finding.name in seen:
            continue
        seen.add(finding.name)
        out.append(finding)
    return out


def _positive(
    rng: np.random.Generator,
    finding: Finding,
    stated: list[Finding],
    before: tuple[Finding, ...] | None,
) -> str:
    severity = pick(rng, SEVERITY[finding.severity])
    both = len({f.side for f in stated if f.name == finding.name}) == 2
    side = "bilateral" if both else finding.side
    zone = {"upper": "upper lobe", "mid": "mid lung", "lower": "lower lobe", "none": ""}[
        finding.zone
    ]
    sign = ""
    if finding.name in SIDED:
        template = pick(rng, SIDED[finding.name])
        if both and finding.name == "effusion":
            template = pick(rng, ("There are {s} bilateral [pleural effusions|effusion].",
                                  "{S} bilateral [effusions|effusion] are present."))  # fmt: skip
    else:
        hedged = finding.severity == 1 and chance(rng, 0.35)
        template = pick(rng, HEDGED if hedged else PRESENT)
        sign = "?" if hedged else ""
    name = set_polarity(pick(rng, NAMES[finding.name]), sign)
    words = template.format(s=severity, S=severity.capitalize(), d=side, D=side.capitalize(),
                            z=zone, n=name)  # fmt: skip
    words = " ".join(words.split())
    if before is not None and chance(rng, 0.6):
        previous = next(
            (f for f in before if (f.name, f.side) == (finding.name, finding.side)), None
        )
        if previous is None:
            change = COMPARISON[1]
        else:
            change = COMPARISON[
                0
                if previous.severity == finding.severity
                else 2
                if finding.severity > previous.severity
                else 3
            ]
        words = words[:-1] + f", {change}."
    return words


def _impression(rng: np.random.Generator, stated: list[Finding]) -> str:
    named = _distinct(stated)
    if not named:
        return pick(rng, CLEAR)
    out = []
    for finding in named:
        both = len({f.side for f in stated if f.name == finding.name}) == 2
        names = PLURAL.get(finding.name, NAMES[finding.name]) if both else NAMES[finding.name]
        side = "" if finding.side == "midline" else ("bilateral" if both else finding.side)
        severity = pick(rng, SEVERITY[finding.severity])
        text = " ".join(f"{severity} {side} {pick(rng, names)}".split())
        out.append(text[0].upper() + text[1:] + ".")
    return " ".join(out)
