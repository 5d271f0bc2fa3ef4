"""Parts of the ECAMP objective against plain computations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ecamp.config import PluginRef
from ecamp.plugin.host import make_plugin
from ecamp.plugin.protocols import DatasetInfo
from ecamp.pretext.base import PretextBatch, PretextContext
from ecamp.pretext.ecamp import objective as module
from ecamp.pretext.ecamp.super_resolution import SuperResolutionHead, cut, random_windows
from ecamp.pretext.images import crop_and_flip, masked_mse, patchify, random_keep, unpatchify

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


def test_a_window_gets_what_the_whole_image_gives_there():
    torch.manual_seed(1)
    head = SuperResolutionHead(2, 8, 2).double()
    images = torch.randn(5, 2, 16, 16, dtype=torch.float64)
    row, column = torch.tensor([0, 3, 22, 10, 0]), torch.tensor([22, 7, 22, 0, 0])
    whole = head(images)
    window = head.window(images, row, column, 10)
    for i in range(5):
        y, x = int(row[i]), int(column[i])
        torch.testing.assert_close(window[i], whole[i, :, y : y + 10, x : x + 10])


def test_cut_takes_rows_as_rows():
    image = torch.arange(2 * 3 * 5.0).view(1, 2, 3, 5)
    part = cut(image, torch.tensor([1]), torch.tensor([3]), 2)
    assert torch.equal(part[0], image[0, :, 1:3, 3:5])


def test_windows_reach_every_corner_and_stay_inside():
    row, column = random_windows(5000, 8, 3, torch.Generator().manual_seed(0))
    assert row.unique().tolist() == column.unique().tolist() == list(range(6))


def test_the_text_loss_does_not_depend_on_how_the_batch_is_parted(monkeypatch: pytest.MonkeyPatch):
    objective = _objective().double().eval()
    batch = _batch()
    tokens = torch.randn(4, 4, 32, dtype=torch.float64)
    losses = []
    for parts in (1, 2, 4):
        monkeypatch.setattr(module, "TEXT_PARTS", parts)
        losses.append(objective._text_loss(batch, tokens))
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0])


def test_the_text_loss_equals_a_plain_loop():
    from ecamp.ops.mask_tokens import mask_tokens

    objective = _objective().double().eval()
    batch, text = _batch(), objective.text
    tokens = torch.randn(4, 4, 32, dtype=torch.float64)
    objective.requires_grad_(False)
    masked = mask_tokens(
        objective.ids, objective.lengths, batch.index, batch.step, batch.seed, objective.tables
    )
    top = bottom = 0.0
    for i in range(4):
        length = int(objective.lengths[i])
        nothing = torch.zeros(1, length, dtype=torch.bool)
        hidden = text(masked.ids[i : i + 1, :length], nothing, tokens[i : i + 1])
        words = text.embeddings.word_embeddings.weight
        scores = F.linear(text.transform(hidden[0]), words, text.bias).softmax(-1)
        for position in range(length):
            if masked.mask[i, position]:
                right = scores[position, objective.ids[i, position]]
                weight = float(masked.weights[i, position])
                top, bottom = top - weight * float(right.log()), bottom + weight
    assert bottom > 0
    assert float(objective._text_loss(batch, tokens)) == pytest.approx(top / bottom, rel=1e-5)


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


def test_masked_mse_looks_at_removed_patches_only():
    predicted, target = torch.zeros(1, 4, 3), torch.ones(1, 4, 3)
    target[0, 2] = 100
    mask = torch.tensor([[True, True, False, False]])
    assert float(masked_mse(predicted, target, mask)) == 1.0


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
