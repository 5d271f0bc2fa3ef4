"""Parts of the ECAMP objective against plain computations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ecamp.api.dataset import DatasetInfo
from ecamp.api.plugin_ref import PluginRef
from ecamp.api.pretext import PretextBatch, PretextContext
from ecamp.ops.mask_tokens import mask_tokens
from ecamp.plugin.host import make_plugin
from ecamp.pretext.ecamp import objective as module
from ecamp.pretext.ecamp.config import ECAMPConfig
from ecamp.pretext.ecamp.reports import Reports
from ecamp.pretext.ecamp.super_resolution import SuperResolutionHead, crop_windows
from ecamp.pretext.images import crop_and_flip, patchify, random_keep, unpatchify
from ecamp.text.tokenizer import encode_reports

REPORTS = (
    "There is a small left pneumothorax.",
    "No pleural effusion. Moderate cardiomegaly with enlarged cardiac silhouette and oedema.",
    "",
    "Clear lungs. No acute findings. Trachea is midline. No evidence of consolidation.",
)


def _objective(**options: object) -> module.ECAMPObjective:
    torch.manual_seed(0)
    ref = PluginRef.parse("vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8")
    encoder = make_plugin("ecamp.encoders", ref).build(1)
    context = PretextContext(DatasetInfo(name="x", version="1"), REPORTS, 2)
    return make_plugin("ecamp.pretext", PluginRef(name="ecamp", options=options)).build(
        encoder, context
    )


def _batch() -> PretextBatch:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(4, 1, 32, 32, generator=generator)
    large = torch.randn(4, 1, 64, 64, generator=generator)
    crop = torch.tensor([[0.0, 0, 1, 1]]).expand(4, -1)
    return PretextBatch(
        images, large, torch.arange(4), crop, torch.zeros(4, dtype=torch.bool), generator, 7, 0
    )


def test_a_window_equals_the_same_window_of_the_whole_image():
    torch.manual_seed(1)
    head = SuperResolutionHead(2, 8, 2).double()
    images = torch.randn(5, 2, 16, 16, dtype=torch.float64)
    row, column = torch.tensor([0, 3, 22, 10, 0]), torch.tensor([22, 7, 22, 0, 0])
    whole = head(images)
    window = head.window(images, row, column, 10)
    for i in range(5):
        y, x = int(row[i]), int(column[i])
        torch.testing.assert_close(window[i], whole[i, :, y : y + 10, x : x + 10])


def test_a_crop_takes_rows_as_rows():
    image = torch.arange(2 * 3 * 5.0).view(1, 2, 3, 5)
    part = crop_windows(image, torch.tensor([1]), torch.tensor([3]), 2)
    assert torch.equal(part[0], image[0, :, 1:3, 3:5])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_packed_and_padded_give_the_same_losses(dropout: float):
    losses = [
        _objective(packed=packed, dropout=dropout, window="random")(_batch())
        for packed in (True, False)
    ]
    for name, value in losses[0].items():
        torch.testing.assert_close(value, losses[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss_on", ["masked", "all"])
def test_the_text_loss_equals_a_plain_loop(loss_on: str):
    objective = _objective(loss_on=loss_on).double().eval()
    batch, text = _batch(), objective.text
    tokens = torch.randn(4, 4, 32, dtype=torch.float64)
    objective.requires_grad_(False)
    report = objective.reports.batch(batch)
    ids, lengths = encode_reports(objective.reports.tokenizer, REPORTS, 96)
    masked = mask_tokens(
        torch.from_numpy(ids), torch.from_numpy(lengths), batch.index, batch.step, batch.seed,
        objective.reports.tables,
    )  # fmt: skip
    top = bottom = 0.0
    for i in range(4):
        length = int(lengths[i])
        nothing = torch.zeros(1, length, dtype=torch.bool)
        hidden = text(masked.ids[i : i + 1, :length], nothing, tokens[i : i + 1])
        words = text.embeddings.word_embeddings.weight
        scores = F.linear(text.transform(hidden[0]), words, text.bias).softmax(-1)
        for position in range(1, length):
            hidden_here = bool(masked.mask[i, position])
            if hidden_here or loss_on == "all":
                right = scores[position, ids[i, position]]
                weight = float(masked.weights[i, position]) if hidden_here else 1.0
                top, bottom = top - weight * float(right.log()), bottom + weight
    assert bottom > 0
    assert float(objective._text_loss(batch, report, tokens)) == pytest.approx(
        top / bottom, rel=1e-5
    )


def test_without_rebalancing_all_masked_words_weigh_the_same():
    report = _objective(rebalance=False).reports.batch(_batch())
    assert torch.equal(report.weights, report.predicted.float())
    assert len(_objective().reports.batch(_batch()).weights.unique()) > 2


def test_distilled_statements_are_read_where_available():
    distilled = ("There is a pneumothorax.", "", "There is no effusion.", "")
    context = PretextContext(DatasetInfo(name="x", version="1"), REPORTS, 2, distilled=distilled)
    reports = Reports(ECAMPConfig(distilled_probability=1.0), context)
    report = reports.batch(_batch())
    texts = [
        reports.tokenizer.decode(row.tolist()) for row in report.ids.split(report.lengths.tolist())
    ]
    assert "there is a pneumothorax" in texts[0]
    assert texts[2] == "there is no effusion."
    plain = Reports(ECAMPConfig(distilled_text=False), context).batch(_batch())
    assert int(plain.lengths[2]) == 1  # [CLS] alone


def test_switches_take_parts_away():
    assert set(_objective()(_batch())) == {"loss", "mim", "sr", "mlm"}
    with torch.no_grad():
        losses = _objective(super_resolution=False, weight_mlm=0.0)(_batch())
    assert "sr" not in losses
    assert float(losses["loss"]) == pytest.approx(float(losses["mim"]))


def test_patches_round_trip_and_keep_the_order_of_rows():
    image = torch.arange(2 * 16 * 16.0).view(1, 2, 16, 16)
    patches = patchify(image, 8)
    assert torch.equal(unpatchify(patches, 8, 2), image)
    assert torch.equal(patches[0, 1].view(8, 8, 2)[:, :, 0], image[0, 0, :8, 8:])


def test_a_quarter_of_the_patches_stays():
    keep, mask = random_keep(6, 64, 0.75, torch.Generator().manual_seed(0))
    assert keep.shape == (6, 16)
    assert (mask.sum(1) == 48).all()
    assert not mask.gather(1, keep).any()


def test_a_crop_is_the_part_it_names_and_a_flip_mirrors_it():
    image = torch.arange(64.0).view(1, 1, 8, 8)
    crop = torch.tensor([[0.5, 0.0, 1.0, 0.5]])  # right half of the columns, upper half of the rows
    plain = crop_and_flip(image, crop, torch.tensor([False]), 4)
    torch.testing.assert_close(plain[0, 0], image[0, 0, :4, 4:])
    mirrored = crop_and_flip(image, crop, torch.tensor([True]), 4)
    torch.testing.assert_close(mirrored[0, 0], image[0, 0, :4, 4:].flip(1))
