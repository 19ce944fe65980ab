"""Masks of trained runs: what the sheets are made of against the formula mask * own + (1 - mask) * partner."""

import pytest
import torch
from PIL import Image

from classify.analysis import figure
from classify.analysis.masks import masks, mix_pair, mixed_pairs, pairs_of_two_classes
from classify.analysis.result import Study
from classify.analysis.trained_run import TrainedRun

STUDY = Study(count=40, batch_size=40)


def run_of(make_run, *flags: str) -> TrainedRun:
    return TrainedRun(make_run("--method", *flags), flags[0], torch.device("cpu"))


def test_pairs_are_of_two_classes_and_use_no_image_twice():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    pairs = pairs_of_two_classes(labels, 3, seed=0)
    assert sorted(pairs.flatten().tolist()) == [0, 1, 2, 3, 4, 5]
    assert (labels[pairs[:, 0]] != labels[pairs[:, 1]]).all()
    assert pairs_of_two_classes(torch.zeros(5, dtype=torch.int64), 9, seed=0).shape == (2, 2)


def test_mixed_images_are_own_and_partner_weighed_by_the_mask(cutmix_run):
    for own, partner, mixed, its_masks in zip(
        *mixed_pairs(cutmix_run, STUDY, pairs=2, lambdas=(0.2, 0.8)), strict=True
    ):
        assert mixed.shape == (2, 3, 32, 32)
        assert its_masks.shape == (2, 1, 32, 32)
        expected = its_masks * own + (1 - its_masks) * partner
        torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=0)
        small, large = its_masks
        # CutMix's box keeps its centre and shrinks: what the smaller lambda leaves of the own image, the larger one does too
        assert (large >= small).all()
        assert large.mean() > small.mean()


def test_automix_shows_the_mix_blocks_masks(make_run):
    run = run_of(make_run, "automix", "--method.lam-margin", "0.08")
    (found,) = mixed_pairs(run, STUDY, pairs=1, lambdas=(0.05, 0.5)).masks
    torch.testing.assert_close(found[0], torch.full((1, 32, 32), 0.05))  # below lam-margin: plain mixup
    images, labels = next(run.batches(count=40, batch_size=40))
    index = pairs_of_two_classes(labels, 1, seed=0)[0]
    z = run.method.teacher.network.stages(images[index])[2]
    block = run.method.mix_block
    with torch.no_grad():
        expected = block(block.project(z), torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), (32, 32))
    torch.testing.assert_close(found[1], expected[0])


def test_the_figure_compares_runs_and_says_who_has_no_masks(cutmix_run, make_run, tmp_path):
    result = masks(
        [cutmix_run, run_of(make_run, "erm"), run_of(make_run, "automix", "--method.lam-margin", "0.08")],
        STUDY,
        pairs=2,
        lambdas=(0.3, 0.6),
    )
    assert result.warnings == ["erm: erm mixes no two images, so there are no masks to show"]
    result.write(tmp_path)
    names = ["methods-at-lambda-0.6", "cutmix-lambda-by-lambda", "automix-lambda-by-lambda", "mean-of-the-masks"]
    for name in names:
        assert len(Image.open(tmp_path / f"{name}.png").convert("RGB").getcolors(1 << 24)) > 20
    means = result.metrics["mask_means"]["automix"]["mean"]
    assert means[0] == 0  # mixup's, as lambda is below lam-margin
    assert means[-1] == 1


def test_the_run_draws_nothing_from_the_global_generator(cutmix_run):
    images, labels = next(cutmix_run.batches(count=2, batch_size=2))
    state = torch.get_rng_state()
    mix_pair(cutmix_run, images, labels, (0.5,), seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_options_out_of_range_are_refused(cutmix_run):
    with pytest.raises(ValueError, match=r"--masks\.lambdas must be at least 0 and at most 1, got 1\.5"):
        figure("masks")([cutmix_run], STUDY, lambdas=(1.5,))
