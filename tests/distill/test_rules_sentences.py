"""Statements of the rules on sentences, by construction. The sentences are this project's own.

`+` present, `?` possible, `-` absent; an empty expectation: nothing is said.
"""

from __future__ import annotations

import pytest

from ecamp.api.distiller import Report, Section, Statement
from ecamp.distill.rules import RulesDistiller

SIGNS = {"present": "+", "possible": "?", "absent": "-"}
CASES: dict[str, list[tuple[str, str]]] = {
    "stated": [
        ("There is a right pleural effusion.", "effusion+"),
        ("Left lower lobe pneumonia.", "pneumonia+"),
        ("Cardiomegaly and pulmonary edema are present.", "cardiomegaly+ edema+"),
        ("Opacity consistent with pneumonia.", "opacity+ pneumonia+"),
        ("Multiple nodules of both lungs compatible with metastases.", "nodule+"),
        ("A new central venous catheter ends in the superior vena cava.", "catheter+"),
        ("COPD.", "copd+"),
        ("Pneumothorax with collapse of the left lung.", "pneumothorax+ collapse+"),
        ("Haziness in keeping with edema.", "edema+"),
    ],
    "inflected and multi-word": [
        ("Bilateral opacifications.", "opacity+"),
        ("Emphysematous changes at the apices.", "emphysema+"),
        ("Ground-glass opacities are scattered about.", "opacity+"),
        ("Atelectatic changes and fibrotic scarring.", "atelectasis+ fibrosis+"),
        ("Congestive heart failure.", "chf+"),
        ("Air space disease on the right.", "consolidation+"),
        ("Healing fractures.", "fracture+"),
        ("The effusions are larger, the masses are not.", "effusion+ mass+"),
    ],
    "denied before": [
        ("No pneumothorax.", "pneumothorax-"),
        ("There is no effusion.", "effusion-"),
        ("There is no radiographic evidence of pneumonia.", "pneumonia-"),
        ("Lungs are clear without infiltrate.", "infiltrate-"),
        ("Negative for fracture.", "fracture-"),
        ("Lungs free of consolidation.", "consolidation-"),
        ("Absence of a pleural effusion.", "effusion-"),
        ("The film does not show a mass.", "mass-"),
        ("Nothing to suggest tuberculosis.", "tuberculosis-"),
        ("Fails to demonstrate pneumothorax.", "pneumothorax-"),
        ("Resolution of the left effusion.", "effusion-"),
        ("Removal of the right catheter.", "catheter-"),
        ("There isn't an effusion.", "effusion-"),
        ("Lungs w/o edema.", "edema-"),
        ("No new nodule.", "nodule-"),
        ("Scarring rather than a mass.", "mass-"),
    ],
    "denied behind": [
        ("Pneumothorax is not seen.", "pneumothorax-"),
        ("The effusion has resolved.", "effusion-"),
        ("The consolidation has cleared.", "consolidation-"),
        ("Pulmonary edema is no longer evident.", "edema-"),
        ("Pneumonia has been ruled out.", "pneumonia-"),
        ("A mass was excluded by CT.", "mass-"),
        ("Pneumothorax: none.", "pneumothorax-"),
        ("The PICC line has been removed.", "catheter-"),
        ("Effusions are absent.", "effusion-"),
        ("Fracture was not clearly identified.", "fracture-"),
    ],
    "lists": [
        ("Concern for edema, pneumonia and effusion.", "edema? pneumonia? effusion?"),
        ("No infiltrates, effusions, masses are seen.", "infiltrate- effusion- mass-"),
        ("No focal consolidation, effusion, or pneumothorax.", "consolidation- effusion- pneumothorax-"),
        ("No nodule, no mass, no opacity.", "nodule- mass- opacity-"),
        ("No effusion or pneumothorax is identified.", "effusion- pneumothorax-"),
        ("No infiltrate, mass or nodule is seen.", "infiltrate- mass- nodule-"),
        ("Neither effusion nor pneumothorax.", "effusion- pneumothorax-"),
        ("Without edema, congestion or effusion.", "edema- congestion- effusion-"),
        ("No lobar, segmental, or patchy consolidation.", "consolidation-"),
        ("Effusion, consolidation and pneumothorax are not seen.", "effusion- consolidation- pneumothorax-"),
        ("Possible atelectasis, pneumonia, or edema.", "atelectasis? pneumonia? edema?"),
        ("No consolidation/effusion.", "consolidation- effusion-"),
        ("No effusion as well as no edema.", "effusion- edema-"),
        ("Negative for emphysema, fibrosis and bronchiectasis.", "emphysema- fibrosis- bronchiectasis-"),
    ],
    "scope ends": [
        ("Possible atelectasis, small effusion.", "atelectasis? effusion+"),
        ("Possible nodule, and masses are not seen.", "nodule? mass-"),
        ("Atelectasis is present and effusions are not seen.", "atelectasis+ effusion-"),
        ("There was an effusion which has resolved.", "effusion-"),
        ("No effusion, but there is a pneumothorax.", "effusion- pneumothorax+"),
        ("No effusion; pneumonia on the left.", "effusion- pneumonia+"),
        ("No effusion, heart is enlarged.", "effusion- cardiomegaly+"),
        ("No effusion, small pneumothorax is noted.", "effusion- pneumothorax+"),
        ("No pneumothorax, and opacity remains at the base.", "pneumothorax- opacity+"),
        ("Aside from atelectasis, no consolidation.", "atelectasis+ consolidation-"),
        ("Edema without effusion.", "edema+ effusion-"),
        ("No abnormality other than a granuloma.", "abnormality- granuloma+"),
        ("Possible pneumonia without effusion.", "pneumonia? effusion-"),
        ("There is no mass, however there is a nodule.", "mass- nodule+"),
        ("Possible nodule with emphysema.", "nodule? emphysema+"),
        ("No effusion although atelectasis persists.", "effusion- atelectasis+"),
        ("The effusion has resolved with residual atelectasis.", "effusion- atelectasis+"),
        ("Opacity at the base, pneumonia not excluded.", "opacity+ pneumonia?"),
        ("Effusion, and pneumonia is not excluded.", "effusion+ pneumonia?"),
        ("Atelectasis is present and pneumothorax is not seen.", "atelectasis+ pneumothorax-"),
        ("No effusion (small on the prior) or edema.", "effusion- edema-"),
        ("Opacity (possibly atelectasis) and effusion.", "opacity+ atelectasis? effusion+"),
    ],
    "pseudo-negation": [
        ("No change in the effusion.", "effusion+"),
        ("No significant interval change in pulmonary edema.", "edema+"),
        ("No increase in effusion.", "effusion+"),
        ("Not only effusion but also pneumonia.", "effusion+ pneumonia+"),
        ("Effusion without change.", "effusion+"),
        ("The pneumothorax has not resolved.", "pneumothorax+"),
        ("The opacity is not significantly changed.", "opacity+"),
        ("The effusion has partially resolved.", "effusion+"),
        ("Partial clearing of the consolidation.", "consolidation+"),
        ("The nodule was not seen on the prior film.", "nodule+"),
        ("The nodule is not well seen.", "nodule+"),
        ("No comparison for this nodule.", "nodule+"),
        ("Near complete resolution of edema.", "edema+"),
        ("No change in effusion, no pneumothorax.", "effusion+ pneumothorax-"),
        ("No mass effect.", ""),
    ],
    "unchanged and changing": [
        ("Unchanged effusion.", "effusion+"),
        ("Stable cardiomegaly.", "cardiomegaly+"),
        ("Edema has improved.", "edema+"),
        ("Resolving pneumonia.", "pneumonia+"),
        ("The nodule is smaller.", "nodule+"),
        ("Worsening consolidation.", "consolidation+"),
        ("Persistent atelectasis.", "atelectasis+"),
    ],
    "hedged before": [
        ("Possible pneumonia.", "pneumonia?"),
        ("There may be a small effusion.", "effusion?"),
        ("Probable atelectasis.", "atelectasis?"),
        ("Cannot exclude a mass.", "mass?"),
        ("Suspicious for pneumonia.", "pneumonia?"),
        ("Concern for pneumothorax.", "pneumothorax?"),
        ("Question of a nodule.", "nodule?"),
        ("? fracture of the rib.", "fracture?"),
        ("Opacity may represent atelectasis or pneumonia.", "opacity+ atelectasis? pneumonia?"),
        ("Findings suggest edema.", "edema?"),
        ("Density, likely granuloma.", "opacity+ granuloma?"),
        ("CT to rule out embolism.", "embolism?"),
        ("Follow up to evaluate for pneumonia.", "pneumonia?"),
        ("Opacities, which could reflect edema.", "opacity+ edema?"),
        ("Opacity likely due to atelectasis.", "opacity+ atelectasis?"),
        ("Favor atelectasis.", "atelectasis?"),
        ("Borderline cardiomegaly.", "cardiomegaly?"),
        ("Raises the question of sarcoidosis.", "sarcoidosis?"),
    ],
    "hedged behind": [
        ("Pneumonia cannot be excluded.", "pneumonia?"),
        ("A small effusion is not entirely excluded.", "effusion?"),
        ("Pneumothorax is suspected.", "pneumothorax?"),
        ("Atelectasis is possible.", "atelectasis?"),
        ("A fracture is difficult to exclude.", "fracture?"),
        ("Tuberculosis should be considered.", "tuberculosis?"),
        ("Pneumonia is unlikely.", "pneumonia?"),
        ("A small effusion may be present.", "effusion?"),
        ("Pneumonia?", "pneumonia?"),
        ("Effusion or pneumonia cannot be excluded.", "effusion? pneumonia?"),
    ],
    "alternatives": [
        ("Atelectasis versus pneumonia.", "atelectasis? pneumonia?"),
        ("Atelectasis at the base vs. consolidation.", "atelectasis? consolidation?"),
        ("Mild atelectasis or infiltrate.", "atelectasis? infiltrate?"),
        ("Effusion and/or pleural thickening.", "effusion? thickening?"),
        ("Opacity in the lower lobe or lingula.", "opacity+"),
        ("One or two nodules.", "nodule+"),
    ],
    "denial and hedge": [
        ("No evidence to suggest pneumonia.", "pneumonia-"),
        ("No findings concerning for mass or nodule.", "mass- nodule-"),
        ("No effusion, possible atelectasis.", "effusion- atelectasis?"),
        ("Although pneumonia cannot be excluded, no effusion is seen.", "pneumonia? effusion-"),
        ("No definite pneumothorax.", "pneumothorax-"),
        ("Possible COPD but no pneumonia.", "copd? pneumonia-"),
        ("No opacity that would be suspicious for tuberculosis.", "opacity- tuberculosis-"),
    ],
    "asides": [
        ("History of tuberculosis.", ""),
        ("Known history of heart failure and COPD.", ""),
        ("CT is more sensitive for the detection of nodules.", ""),
        ("Evaluation for pneumothorax is limited.", ""),
    ],
    "structures": [
        ("The perihilar opacity is increased.", "opacity+"),
        ("Opacity at the left hilum is increased.", "opacity+"),
        ("The aorta shows increased calcification.", "calcification+"),
        ("The mediastinum is normal in contour.", "cardiomediastinal- contour-"),
        ("The silhouette shows tortuosity of the aorta.", "aorta+"),
        ("The hila are stable and mildly prominent.", "hilar+"),
        ("Perihilar haze indicates edema, decreased since Monday.", "edema+"),
        ("Aorta, hilar contours, vasculature are normal.", "aorta- hilar- contour- vasculature-"),
        ("The aorta is normal.", "aorta-"),
        ("Cardiomediastinal contours are unremarkable.", "cardiomediastinal- contour-"),
        ("Hilar, mediastinal and aortic contours are normal.", "hilar- cardiomediastinal- aorta- contour-"),
        ("Normal pulmonary vasculature.", "vasculature-"),
        ("The aorta is tortuous.", "aorta+"),
        ("Elevated left hemidiaphragm.", "hemidiaphragm+"),
        ("Mediastinal widening.", "cardiomediastinal+"),
        ("No mediastinal widening.", "cardiomediastinal-"),
        ("The hila are not enlarged.", "hilar-"),
        ("The mediastinum is not normal.", "cardiomediastinal+"),
        ("Possible hilar prominence.", "hilar?"),
        ("Perihilar opacity.", "opacity+"),
        ("Aortic calcification.", "calcification+"),
        ("A mass near the left hilum.", "mass+"),
        ("Stable mediastinal contours.", ""),
        ("The silhouette is stable and normal.", "silhouette-"),
        ("Tortuous aorta and normal mediastinal contours.", "aorta+ cardiomediastinal- contour-"),
        ("Tortuous aorta, otherwise normal.", "aorta+"),
        ("The vascular markings are increased.", "vasculature+"),
        ("The lungs are well aerated.", "aerate-"),
        ("Opacity obscures the left hemidiaphragm.", "opacity+ obscure+"),
        ("The silhouette is normal in size and contour.", "silhouette- contour-"),
        ("No abnormality of the aorta.", "abnormality-"),
    ],
    "the heart": [
        ("Heart size normal, stable hila.", "cardiomegaly-"),
        ("Normal heart, stable hila.", "cardiomegaly-"),
        ("Normal heart, clips at the left hilum.", "cardiomegaly-"),
        ("Normal size and shape of the heart.", "cardiomegaly-"),
        ("Normal heart, lungs, and left hemidiaphragm.", "cardiomegaly- hemidiaphragm-"),
        ("Heart size normal, hila in place.", "cardiomegaly-"),
        ("Normal heart, hila and vasculature.", "cardiomegaly- hilar- vasculature-"),
        ("The heart is stable and grossly normal.", "cardiomegaly-"),
        ("Heart size is normal.", "cardiomegaly-"),
        ("The heart is normal in size.", "cardiomegaly-"),
        ("Heart and mediastinum are within normal limits.", "cardiomegaly- cardiomediastinal-"),
        ("The heart is mildly enlarged.", "cardiomegaly+"),
        ("The heart is not enlarged.", "cardiomegaly-"),
        ("Heart size is borderline.", "cardiomegaly?"),
        ("The cardiac silhouette is enlarged.", "cardiomegaly+"),
        ("The cardiac silhouette is normal.", "cardiomegaly- silhouette-"),
        ("The heart is at the upper limits of normal.", "cardiomegaly-"),
        ("Heart size is unchanged.", ""),
        ("Enlarged heart and tortuous aorta.", "cardiomegaly+ aorta+"),
        ("Heart size normal, lungs clear.", "cardiomegaly-"),
    ],
    "nothing": [
        ("The lungs are clear.", ""),
        ("XXXX XXXX.", ""),
        ("...", ""),
        ("Degenerative spine.", ""),
    ],
    "other words than the lexicon's": [
        ("No acute process.", "abnormality-"),
        ("No active cardiopulmonary disease.", "abnormality-"),
        ("Emphysema without acute disease.", "emphysema+ abnormality-"),
        ("Consider infection.", "pneumonia?"),
        ("Density in the left base.", "opacity+"),
        ("Bone density is normal.", ""),
        ("The lungs are well expanded.", "aerate-"),
        ("Degenerative disease of the spine.", ""),
        ("No hilar adenopathy.", ""),
    ],
    "marks of de-identification": [
        ("No XXXX of a pleural effusion.", "effusion-"),
        ("XXXX atelectasis in the left base.", "atelectasis+"),
        ("There is no XXXX, effusion, or XXXX pneumothorax.", "effusion- pneumothorax-"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def rules() -> RulesDistiller:
    return RulesDistiller(RulesDistiller.Config())


def statements(rules: RulesDistiller, text: str) -> tuple[Statement, ...]:
    report = Report("1", text, (Section("findings", 0, len(text)),))
    return next(iter(rules.distill([report]))).statements


@pytest.mark.parametrize(
    ("sentence", "expected"), [pytest.param(*c, id=c[0]) for group in CASES.values() for c in group]
)
def test_sentence(rules: RulesDistiller, sentence: str, expected: str) -> None:
    said = sorted(s.entity + SIGNS[s.polarity] for s in statements(rules, sentence))
    assert said == sorted(expected.split())


def test_capitals_and_line_breaks_change_nothing(rules: RulesDistiller) -> None:
    for sentence, expected in (case for group in CASES.values() for case in group):
        for text in (sentence.upper(), sentence.replace(" ", "\n  "), f"  {sentence}  "):
            if text.upper() == text and "vs." in sentence:
                continue  # "VS. CONSOLIDATION" ends a sentence there: the splitter's rule
            said = sorted(s.entity + SIGNS[s.polarity] for s in statements(rules, text))
            assert said == sorted(expected.split()), text


def test_there_are_enough_sentences() -> None:
    assert sum(map(len, CASES.values())) >= 180


DESCRIBED = [
    ("Small left pleural effusion.", "effusion", "severity:small side:left"),
    ("A 2.5 x 1.8 cm nodule in the right upper lobe.", "nodule",
     "size:2.5 x 1.8 cm side:right zone:upper lobe"),
    ("Opacity in the left base with a small effusion.", "opacity", "side:left zone:base"),
    ("Opacity in the left base with a small effusion.", "effusion", "severity:small"),
    ("No focal consolidation.", "consolidation", "kind:focal"),
    ("No change in the large effusion.", "effusion", "change:no change in severity:large"),
    ("Effusion, unchanged.", "effusion", "change:unchanged"),
    ("Nodule measuring 8mm.", "nodule", "size:8mm"),
    ("Moderate, left-sided effusion.", "effusion", "severity:moderate side:left-sided"),
    ("Mild edema and large effusion.", "edema", "severity:mild"),
    ("Mild edema and large effusion.", "effusion", "severity:large"),
    ("Right chest tube, no pneumothorax.", "pneumothorax", ""),
    ("Stable mediastinal contours, small effusion.", "effusion", "severity:small"),
    ("COPD and no acute disease.", "copd", ""),
    ("New linear atelectasis.", "atelectasis", "change:new kind:linear"),
    ("Calcified granuloma.", "granuloma", "kind:calcified"),
    ("Calcified granuloma.", "calcification", ""),
    ("Calcified lymph nodes.", "calcification", ""),
    ("Normal heart, stable hila.", "cardiomegaly", ""),
    ("Opacity in the left base due to effusion.", "effusion", ""),
    ("Effusion; the left lung is clear.", "effusion", ""),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "entity", "expected"), DESCRIBED)
def test_descriptors(rules: RulesDistiller, sentence: str, entity: str, expected: str) -> None:
    found = next(s for s in statements(rules, sentence) if s.entity == entity)
    assert " ".join(f"{kind}:{words}" for kind, words in found.descriptors) == expected


def test_spans_are_those_of_the_words(rules: RulesDistiller) -> None:
    text = "Clear lungs.  No Pleural Effusion; the heart is mildly enlarged. Tortuous aorta. "
    text += "Heart and hila are enlarged."
    assert [text[s.start : s.end] for s in statements(rules, text)] == [
        "Pleural Effusion", "heart is mildly enlarged", "aorta", "Heart", "hila",
    ]  # fmt: skip
