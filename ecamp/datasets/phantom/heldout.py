"""Held-out reports with their statements, in wording that `report.py` never uses, to test distillers.

They were written before the rules distiller and not used to tune it. In a template `<+thing>`, `<?stuff>`
and `<-many>` are slots for a name that is present, possible or absent; no entity appears twice in a
sentence. Marks are as in `marked_text.py`.
"""

from __future__ import annotations

import re

import numpy as np

from ecamp.api.distiller import Statement
from ecamp.datasets.phantom.deterministic_math import chance, generator
from ecamp.datasets.phantom.marked_text import parse_marked_report
from ecamp.datasets.phantom.report import pick

_STREAM = 11  # apart from the streams of studies

NAMES = {
    "thing": ("[nodule]", "[lung nodule|nodule]", "[mass]", "[pleural effusion|effusion]", "[effusion]",
              "[pneumothorax]", "[opacity]", "[infiltrate]", "[granuloma]", "[fracture]",
              "[hiatal hernia|hernia]", "[airspace opacity|consolidation]", "[abscess]",
              "[ground-glass opacity|opacity]", "[mass lesion|mass]", "[pulmonary embolus|embolism]",
              "[calcified|calcification] [granuloma]"),
    "stuff": ("[atelectasis]", "[consolidation]", "[pneumonia]", "[edema]", "[pulmonary edema|edema]",
              "[cardiomegaly]", "[pleural thickening|thickening]", "[vascular congestion|congestion]",
              "[emphysema]", "[pulmonary fibrosis|fibrosis]", "[airspace disease|consolidation]",
              "[heart failure|chf]", "[bronchiectasis]", "[tuberculosis]", "[calcification]",
              "[pulmonary venous congestion|congestion]", "[collapse]", "[hyperinflation|hyperinflate]",
              "[pleural fluid|effusion]", "[sarcoidosis]"),
    "many": ("[nodules|nodule]", "[pulmonary nodules|nodule]", "[masses|mass]", "[opacities|opacity]",
             "[pleural effusions|effusion]", "[infiltrates|infiltrate]", "[granulomas|granuloma]",
             "rib [fractures|fracture]", "[calcifications|calcification]",
             "[consolidations|consolidation]", "[fibrotic changes|fibrosis]"),
}  # fmt: skip
WORDS = {
    "sev": ("mild", "slight", "moderate", "marked", "trace", "extensive", "minor"),
    "side": ("left", "right"),
    "zone": ("lower lobe", "lung base", "apex", "midlung", "upper lobe", "costophrenic angle"),
    "size": ("0.9 cm", "1.2 cm", "7 mm", "2.5 x 1.8 cm", "14 mm"),
    "date": ("2 days ago", "the prior of 04/12", "the outside film", "Jan. 5", "last year"),
}

PRESENT = (
    "Again demonstrated is <sev> <side> <+stuff>, not significantly changed.",
    "<sev> <+stuff> persists at the <side> <zone>.",
    "Interval increase in the <side> <+thing>, now measuring <size>.",
    "Redemonstration of a <size> <+thing> overlying the <side> fifth rib.",
    "Unchanged <sev> <+stuff> compared with <date>.",
    "Interval improvement of the <side> basilar <+stuff>, though some remains.",
    "No change in the <sev> <side> <+thing>.",
    "No significant interval change in <+stuff> or in the <side> <+thing>.",
    "<+many> have increased in number since <date>, the largest 1.3 x 0.8 cm.",
    "Stable postoperative appearance with a persistent <side> <+thing>.",
    "Scattered <+many> are redemonstrated, more on the <side>.",
    "A <size> <+thing> projects over the <side> <zone> on the frontal view only.",
    "Findings are in keeping with <sev> <+stuff>.",
    "Not only <+stuff> but also a <side> <+thing> can be appreciated.",
    "<+stuff>, <sev>, greatest at the <side> <zone>.",
    "The <side> <+thing> has not resolved.",
    "Known <+stuff> again seen; <+stuff> is superimposed.",
    "There has been partial clearing of the <side> <+stuff>.",
    "Slight decrease in size of the <side> <+thing>, previously 3.1 cm and now 2.6 cm.",
    "Worsening <+stuff> with a new <side> <+thing>.",
    "Heavy <+many> about the <side> <zone>.",
    "Multiple <+many>, none larger than 0.8 cm.",
)
POSSIBLE = (
    "Subtle retrocardiac [density|opacity], <?stuff> not excluded.",
    "<?stuff> versus <?stuff> at the <side> <zone>.",
    "This could reflect early <?stuff>.",
    "Cannot rule out a <side> <?thing>.",
    "Question of a <size> <?thing> in the <side> <zone>.",
    "? <?stuff> in the <side> perihilar region.",
    "An underlying <?thing> would be difficult to exclude on this single portable view.",
    "The appearance is concerning for <?stuff> or <?stuff>.",
    "Probable <sev> <?stuff>.",
    "<?stuff> is suspected at the <side> <zone>.",
    "Questionable <side> <?thing>, recommend CT.",
    "Ill-defined shadow on the <side>, which might represent a <?thing>.",
    "Coarse interstitial markings suggest <sev> <?stuff>.",
    "Superimposed <?stuff> should be considered in the proper clinical setting.",
    "CT is advised to evaluate for <?stuff>.",
    "Equivocal <side> <?thing>.",
    "A developing <?thing> is a consideration.",
    "<?stuff> is possible at the <side> <zone>.",
    "Most likely <?stuff>, less likely <?stuff>.",
    "Worrisome for <?stuff>, <?stuff>, or both.",
    "Suspected <side> <?thing>, <size>.",
)
ABSENT = (
    "Negative for <-stuff>, <-thing> and <-stuff>.",
    "The lungs are free of <-stuff> and <-many>.",
    "<-stuff> is not seen.",
    "Neither <-thing> nor <-stuff> is identified.",
    "The previously described <side> <-thing> has resolved.",
    "Interval resolution of <side> <-stuff>.",
    "Absence of <-stuff>.",
    "The lungs show no convincing <-stuff>, <-many> or <-stuff>.",
    "No radiographic signs to suggest <-stuff> or <-stuff>.",
    "Previously noted <-many> are no longer visualized.",
    "The <side> <-stuff> has cleared completely.",
    "<-stuff>: none.",
    "This study fails to demonstrate <-stuff>.",
    "We do not see a <-thing>.",
    "No <-thing>, no <-stuff>, no <-many>.",
    "There is nothing to indicate <-stuff> or <-stuff>.",
    "The costophrenic angles are sharp without <-thing>.",
    "Without radiographic evidence for acute <-stuff> or <-stuff>.",
    "Chest is clear, with no <-stuff> and no <-thing>.",
    "<-stuff> and <-stuff> have been excluded.",
    "<-stuff> was ruled out on <date>.",
    "No focal <-stuff>, large <-thing>, or acute <-many>.",
    "There are no findings of <-stuff>, <-stuff>, <-stuff> or <-stuff>.",
)
MIXED = (
    "No <-stuff>, but there is a <sev> <side> <+thing>.",
    "<sev> <+stuff> without <-stuff> or <-many>.",
    "The <side> <+thing> is unchanged, and no new <-stuff> has developed.",
    "Although <?stuff> cannot be excluded, no <-thing> is seen.",
    "No definite <-stuff>; however, <?stuff> remains possible.",
    "There is <sev> <+stuff>, which may represent <?stuff>.",
    "<side> <zone> <+thing>, likely <?stuff>.",
    "<sev> <+stuff> is present but there is no <-thing> or <-stuff>.",
    "The <side> <+thing> has enlarged while the previously seen <-stuff> has resolved.",
    "Aside from <sev> <+stuff>, no <-thing> is identified.",
    "<+stuff> has improved; <-stuff> is not seen, and the [-heart size|cardiomegaly] is normal.",
    "No <-thing> or <-stuff>; <sev> <+stuff> is noted at the <side> <zone>.",
    "Apart from a <size> <+thing>, negative for <-stuff> or <-many>.",
    "<sev> <+stuff> [obscures|obscure] the <side> heart border.",
    "<+stuff> is again noted with no superimposed <-stuff>, <-many>, or <-thing>.",
    "A <size> <side> <+thing> is stable since <date>, <?stuff> is less likely.",
)
ANATOMY = (
    "[-Heart size|cardiomegaly] and [-pulmonary vascularity|vasculature] are within normal limits.",
    "[-Hilar|hilar] and [-mediastinal|cardiomediastinal] [-contours|contour] appear unremarkable.",
    "Normal [-cardiomediastinal] [-silhouette].",
    "The [-thoracic aorta|aorta] is unremarkable.",
    "The [-aorta] is normal in caliber, and the [-hila|hilar] are not enlarged.",
    "[-Pulmonary vasculature|vasculature] appears normal.",
    "The [aorta] is tortuous.",
    "<sev> elevation of the <side> [hemidiaphragm].",
    "Prominent [hilar] shadows bilaterally.",
    "[-Heart|cardiomegaly] normal in size.",
    "[Vascular markings|vasculature] are increased.",
    "Widened [mediastinum|cardiomediastinal].",
    "The [-mediastinum|cardiomediastinal] is not widened.",
)
NOTHING = (
    "The lungs are clear.",
    "Bony thorax is intact.",
    "Median sternotomy wires are noted.",
    "Comparison is made with <date>.",
    "Lung volumes are low.",
    "The patient has a history of pneumonia.",
    "The trachea is midline.",
    "Follow up in 6 to 8 weeks is recommended.",
    "No comparison films are available.",
)
KINDS = (PRESENT, POSSIBLE, ABSENT, MIXED, ANATOMY, NOTHING)
_SHARES = (0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5)  # index into KINDS
_HEADINGS = (
    ("FINDINGS: ", "IMPRESSION: "),
    ("FINDINGS:\n", "CONCLUSION:\n"),
    ("CHEST FINDINGS:\n\n", "IMPRESSION: "),
)
_SLOT = re.compile(r"<([+?-]?)(\w+)>")
_ENTITIES = re.compile(r"\[[?-]?([^]]+)\]")
_FIRST_LETTER = re.compile(r"(\[[?-]?)?(\w)([^]|]*)(\])?")


def held_out_report(seed: int, index: int) -> tuple[str, tuple[Statement, ...]]:
    """Write one report.

    Returns:
        Text with headings at line starts, and its statements in text order.
    """
    rng = generator(seed, index, _STREAM)
    body = [_sentence(rng) for _ in range(3 + int(rng.integers(0, 6)))]
    last = [_sentence(rng) for _ in range(1 + int(rng.integers(0, 3)))]
    if len(last) > 1 and chance(rng, 0.5):
        last = [f"{number}. {words}" for number, words in enumerate(last, 1)]
    first, second = _HEADINGS[int(rng.integers(0, len(_HEADINGS)))]
    return parse_marked_report([(first, " ".join(body)), (second, " ".join(last))], "\n")


def _sentence(rng: np.random.Generator) -> str:
    """Fill a template; the marks stay."""
    template = pick(rng, KINDS[_SHARES[int(rng.integers(0, len(_SHARES)))]])
    used = _named(template)

    def fill(slot: re.Match[str]) -> str:
        sign, group = slot.groups()
        if group in WORDS:
            return pick(rng, WORDS[group])
        unused = tuple(name for name in NAMES[group] if not _named(name) & used)
        name = pick(rng, unused)
        used.update(_named(name))
        return name.replace("[", "[" + sign.replace("+", ""))

    return _capitalised(_SLOT.sub(fill, template))


def _named(marked: str) -> set[str]:
    return {mark.rpartition("|")[2].lower() for mark in _ENTITIES.findall(marked)}


def _capitalised(marked: str) -> str:
    """Capitalise a sentence; a mark without an explicit entity gets its uncapitalised words as entity."""
    match = _FIRST_LETTER.match(marked)
    if match is None:
        return marked
    bracket, letter, rest, close = match.groups()
    entity = f"|{letter}{rest}]" if bracket and close else close or ""
    return f"{bracket or ''}{letter.upper()}{rest}{entity}{marked[match.end() :]}"
