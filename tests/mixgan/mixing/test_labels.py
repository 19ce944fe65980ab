"""Labels beyond classes, each against a slow form written here: maps, boxes, several labels, numbers, partners, saliency."""

import math
from collections import Counter

import pytest
import torch

import mixgan
from mixgan import build_mixer, choose_partner, list_mixers
from mixgan.mixing.registry import MIXERS

CLASSES = 5
PAIRS = [name for name in list_mixers() if name != "comixup"]
IN_PLACE = [name for name, mixer in MIXERS.items() if not mixer.moves_pixels and name != "comixup"]
BY_MASK = [name for name, mixer in MIXERS.items() if mixer.label_follows_mask]


def made(name, size=(16, 16), count=6, seed=0, **options):
    """A mixer, images, and a plan of them."""
    generator = torch.Generator().manual_seed(seed)
    mixer = build_mixer(name, **{"num_classes": CLASSES, **options})
    images = torch.rand(count, 3, *size, generator=generator)
    saliency = torch.rand(count, *size, generator=generator) if mixer.saliency_kind else None
    return mixer, images, mixer.plan(images, saliency=saliency, generator=generator)


@pytest.mark.parametrize("name", list_mixers())
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.int32])
def test_a_label_map_shows_at_every_pixel_the_image_that_weighs_more(name, dtype):
    # Oracle: the same plan mixes one-hot float maps; the larger channel wins. 255 is the ignore index.
    mixer, _, plan = made(name)
    labels = torch.randint(CLASSES, (6, 16, 16)).to(dtype)
    labels[:, 3:6, 2:9] = 255
    mixed = mixer.mix_images(labels, plan)
    assert mixed.dtype == dtype
    assert mixed.shape == labels.shape
    values = torch.tensor([0, 1, 2, 3, 4, 255])
    one_hot = (labels[:, None].long() == values.view(1, -1, 1, 1)).float()
    shares = mixer.mix_images(one_hot, plan)
    winner = shares.amax(1, keepdim=True)
    shown = shares.gather(1, (mixed[:, None].long()[:, :, None] == values.view(1, 1, -1, 1, 1)).float().argmax(2))
    torch.testing.assert_close(shown, winner)


def test_a_label_map_of_another_size_is_cut_at_the_nearest_pixel():
    mixer, _, plan = made("cutmix", size=(8, 8))
    labels = torch.randint(CLASSES, (6, 16, 16))
    mask = plan.mask.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, 0] == 1  # every mask pixel covers 2 x 2
    assert torch.equal(mixer.mix_images(labels, plan), torch.where(mask, labels, labels[plan.partner]))


@pytest.mark.parametrize("name", list_mixers())
def test_a_float_map_without_channels_is_a_map_of_one_channel(name):
    mixer, images, plan = made(name)
    depth, others = images[:, 0], images.flip(0)[:, 1]
    mixed = mixer.mix_images(depth, plan, others=others)
    assert torch.equal(mixed, mixer.mix_images(depth[:, None], plan, others=others[:, None])[:, 0])


@pytest.mark.parametrize("name", IN_PLACE)
def test_volumes_are_mixed_slice_by_slice_with_one_mask(name):
    mixer = build_mixer(name, num_classes=CLASSES)
    volumes = torch.rand(4, 2, 3, 12, 10)
    if mixer.saliency_kind:
        with pytest.raises(ValueError, match=r"volumes .* need a method that is only a mask"):
            mixer.plan(volumes, saliency=torch.rand(4, 12, 10))
        return
    mixed = mixer.mix(volumes, torch.tensor([0, 1, 2, 3]))
    for depth in range(3):
        slices = mixer.mix_images(volumes[:, :, depth], mixed.plan)
        torch.testing.assert_close(mixed.images[:, :, depth], slices)


def test_methods_that_move_pixels_refuse_volumes():
    for name in ("resizemix", "patchshuffle"):
        with pytest.raises(ValueError, match=r"volumes .* such as cutmix or mixup"):
            build_mixer(name, num_classes=CLASSES).plan(torch.rand(2, 1, 3, 8, 8))


@pytest.mark.parametrize("name", list_mixers())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_several_labels_are_weighted_or_united(name, dtype):
    if MIXERS[name].changes_labels:
        with pytest.raises(ValueError, match="changes class labels"):
            build_mixer(name, num_classes=CLASSES, label_kind="multi-label")
        return
    mixer, _, plan = made(name, label_kind="multi-label")
    labels = (torch.rand(6, CLASSES) < 0.4).to(dtype)
    weighted, united = torch.zeros(6, CLASSES), torch.zeros(6, CLASSES)
    for sample in range(6):
        for source, weight in zip(plan.sources[sample].tolist(), plan.weights[sample].tolist(), strict=True):
            weighted[sample] += weight * labels[source].float()
            if weight > 0:
                united[sample] = torch.maximum(united[sample], labels[source].float())
    found = mixer.targets(labels, plan)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, weighted)
    assert torch.equal(mixer.with_labels("multi-label", union=True).targets(labels, plan), united)


@pytest.mark.parametrize("name", list_mixers())
@pytest.mark.parametrize("shape", [(6,), (6, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_numbers_are_averaged_by_weight_and_need_no_num_classes(name, shape, dtype):
    if MIXERS[name].changes_labels:
        return
    mixer, _, plan = made(name, label_kind="value", num_classes=None)
    values = (torch.randn(shape, dtype=torch.float64) * 100).to(dtype)
    expected = torch.zeros(shape, dtype=torch.float64)
    for sample in range(6):
        for source, weight in zip(plan.sources[sample].tolist(), plan.weights[sample].tolist(), strict=True):
            expected[sample] += weight * values[source]
    found = mixer.targets(values, plan)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-5)


def test_one_hot_integers_are_classes_unless_said_otherwise():
    mixer, _, plan = made("mixup")
    one_hot = torch.nn.functional.one_hot(torch.arange(6) % CLASSES, CLASSES)
    torch.testing.assert_close(mixer.targets(one_hot, plan), mixer.targets(torch.arange(6) % CLASSES, plan))


@pytest.mark.parametrize("kind", ["class", "multi-label", "value"])
@pytest.mark.parametrize("name", ["cutmix", "comixup", "mixup+cutmix"])
def test_targets_of_every_kind_compile_whole_for_changing_batch_sizes(name, kind):
    torch.compiler.reset()
    mixer, _, _ = made(name, label_kind=kind)
    targets = torch.compile(mixer.targets, fullgraph=True, backend="eager")
    for count in (6, 4, 9):
        plan = made(name, count=count, label_kind=kind)[2]
        labels = {"class": torch.arange(count) % CLASSES, "multi-label": torch.eye(count)[:, :CLASSES]}.get(kind)
        labels = torch.rand(count, 2) if labels is None else labels
        if kind == "multi-label":
            labels = torch.zeros(count, CLASSES).index_fill(1, torch.tensor([1]), 1.0)
        torch.testing.assert_close(targets(labels, plan), mixer.targets(labels, plan))


@pytest.mark.parametrize("name", ["cutmix", "mixup", "mixup-hv", "resizemix", "puzzlemix", "comixup"])
def test_label_maps_compile_whole_for_changing_batch_sizes(name):
    torch.compiler.reset()
    mixer, _, _ = made(name)
    mix_images = torch.compile(mixer.mix_images, fullgraph=True, backend="eager")
    for count in (6, 4, 9):
        plan = made(name, count=count)[2]
        labels = torch.randint(CLASSES, (count, 16, 16))
        assert torch.equal(mix_images(labels, plan), mixer.mix_images(labels, plan))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_kind": "boxes"}, "kind must be one of class, multi-label, value, got 'boxes'"),
        ({"label_by": "eye"}, "by must be one of area, saliency, got 'eye'"),
        ({"union": True}, "union=True is for kind='multi-label', got kind='class'"),
        ({"label_by": "saliency", "label_blend": 1.5}, r"blend must lie in \[0, 1\], got 1.5"),
        ({"num_classes": None}, "label_kind='class' needs num_classes="),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_mixer("cutmix", **{"num_classes": CLASSES, **arguments})


def test_wrong_labels_are_refused():
    mixer, _, plan = made("cutmix", label_kind="multi-label")
    with pytest.raises(ValueError, match=r"multi-label labels must be \(6, 5\), one column for each label, got \(6,\)"):
        mixer.targets(torch.zeros(6), plan)
    with pytest.raises(ValueError, match=r"values must be \(6,\) or \(6, D\), got \(5,\)"):
        mixer.with_labels("value").targets(torch.zeros(5), plan)
    with pytest.raises(ValueError, match=r"for the plan's 6 samples, got \(5, 16, 16\)"):
        mixer.mix_images(torch.zeros(5, 16, 16), plan)


@pytest.mark.parametrize("wrong", [-1, -100, CLASSES])
def test_a_class_that_does_not_exist_is_quoted(wrong):
    mixer, _, plan = made("cutmix")
    labels, fine = torch.tensor([0, 1, 2, 3, 4, wrong], dtype=torch.int32), torch.zeros(6, dtype=torch.int32)
    for given in ({"labels": labels}, {"labels": fine, "other_labels": labels}):
        with pytest.raises(ValueError, match=rf"from 0 to num_classes - 1 = 4, got {wrong}; leave"):
            mixer.targets(plan=plan, **given)


def test_what_is_no_tensor_is_quoted():
    mixer, images, plan = made("cutmix")
    for given, message in (
        ({"lam": 0.5}, r"lam must be \(6,\), one per image, got 0.5"),
        ({"partner": [1, 0]}, r"partner must be \(6,\) indices, got \[1, 0\]"),
        ({"generator": 3}, "generator must be a torch.Generator, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            mixer.plan(images, **given)
    with pytest.raises(ValueError, match="labels must be a tensor, got list"):
        mixer.targets([0] * 6, plan)
    with pytest.raises(ValueError, match="float tensor, got ndarray"):
        mixer.plan(images.numpy())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cutmix", {"num_classes": "5"}, "num_classes must be a whole number of at least 1, got '5'"),
        ("cutmix", {"num_classes": float("inf")}, "num_classes must be a whole number of at least 1, got inf"),
        ("gridmix", {"cells": float("nan")}, "cells must be a whole number of at least 1, got nan"),
        ("gridmix", {"cells": 2.5}, "cells must be a whole number of at least 1, got 2.5"),
        ("patchshuffle", {"patch_size": 1.5}, "patch_size must be a whole number of at least 1, got 1.5"),
        ("mixup+cutmix", {"weights": (1, float("nan"))}, "weights must be 2 numbers above 0"),
        ("mixup+cutmix", {"weights": (1, float("inf"))}, "weights must be 2 numbers above 0"),
    ],
)
def test_options_that_are_no_such_numbers_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_mixer(name, **{"num_classes": CLASSES, **options})


@pytest.mark.parametrize(("name", "option"), [("gridmix", {"cells": 3.0}), ("patchshuffle", {"patch_size": 3.0})])
def test_whole_numbers_may_be_floats(name, option):
    images, labels = torch.rand(6, 3, 9, 9), torch.arange(6) % CLASSES
    whole = {key: int(value) for key, value in option.items()}
    found, expected = [], []
    for given, batches in ((option, found), (whole, expected)):
        torch.manual_seed(0)
        batches += build_mixer(name, num_classes=CLASSES, **given)(images, labels)
    assert all(map(torch.equal, found, expected))


# Partners


def test_partners_are_of_the_class_that_the_policy_says():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        same = choose_partner(labels, "same", generator=generator)
        assert torch.equal(labels[same], labels)
        assert (same != torch.arange(6)).tolist() == [True] * 5 + [False]  # the last is alone in its class
        assert (labels[choose_partner(labels, "other", generator=generator)] != labels).all()
    soft = torch.nn.functional.one_hot(labels, 3).float()
    assert (labels[choose_partner(soft, "other")] != labels).all()
    assert torch.equal(choose_partner(torch.zeros(3, dtype=torch.int64), "other"), torch.arange(3))


def test_balanced_partners_come_from_every_class_alike():
    # Oracle: frequencies 1/2 for either class though one has 9 of 10 samples; 5 standard deviations.
    labels = torch.tensor([0] * 9 + [1])
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([choose_partner(labels, "balanced", generator=generator) for _ in range(400)])
    share = (labels[draws] == 1).float().mean().item()
    assert abs(share - 0.5) < 5 * math.sqrt(0.25 / draws.numel())


def test_nearest_partners_follow_the_kernel():
    # Oracle: exp(-d^2 / (2 sigma^2)) normalised over the other samples; 5 standard deviations.
    values = torch.tensor([0.0, 1.0, 3.0])
    generator = torch.Generator().manual_seed(0)
    counts = Counter(int(choose_partner(values, "nearest", bandwidth=1.5, generator=generator)[0]) for _ in range(2000))
    kernel = {1: math.exp(-1 / 4.5), 2: math.exp(-9 / 4.5)}
    assert counts[0] == 0
    for place, weight in kernel.items():
        p = weight / sum(kernel.values())
        assert abs(counts[place] / 2000 - p) < 5 * math.sqrt(p * (1 - p) / 2000)
    far = choose_partner(torch.tensor([0.0, 1e4, -2e4]), "nearest", bandwidth=0.1)  # every plain weight underflows
    assert far.tolist() == [1, 0, 0]


@pytest.mark.parametrize("policy", ["same", "other", "balanced", "nearest"])
def test_partners_replay_and_compile(policy):
    labels = torch.tensor([0, 1, 0, 1, 2, 2])
    first, second = (choose_partner(labels, policy, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(first, second)
    compiled = torch.compile(choose_partner, fullgraph=True, backend="eager")
    for count in (6, 3):
        partner = compiled(labels[:count], policy)
        assert partner.shape == (count,)
        assert partner.dtype == torch.int64


def test_wrong_partners_are_refused():
    with pytest.raises(ValueError, match="policy must be one of same, other, balanced, nearest, got 'any'"):
        choose_partner(torch.arange(3), "any")
    with pytest.raises(ValueError, match="bandwidth must be above 0, got 0"):
        choose_partner(torch.arange(3), "nearest", bandwidth=0.0)


# Labels by content


@pytest.mark.parametrize("name", BY_MASK)
@pytest.mark.parametrize("blend", [1.0, 0.3])
def test_labels_by_saliency_weigh_what_is_shown_of_it(name, blend):
    # Oracle: pixel sums in float64 of where the plan puts each pixel of the map.
    generator = torch.Generator().manual_seed(3)
    mixer = build_mixer(name, num_classes=CLASSES, label_by="saliency", label_blend=blend)
    images, saliency = torch.rand(6, 3, 16, 16, generator=generator), torch.rand(6, 16, 16, generator=generator) ** 4
    plan = mixer.plan(images, saliency=saliency, generator=generator)
    mask, s = plan.mask[:, 0].double(), saliency.double()
    for b in range(6):
        partner = int(plan.partner[b])
        maps = [saliency[None, None], saliency[None, None]]
        if name == "puzzlemix":
            moved = mixer.move_pixels(saliency[:, None], saliency[plan.partner][:, None], plan)
            maps = [m[b, 0].double() for m in moved]
        else:
            maps = [s[b], s[partner]]
        own = (mask[b] * maps[0]).sum() / s[b].sum()
        theirs = ((1 - mask[b]) * maps[1]).sum() / s[partner].sum()
        own, theirs = min(own, torch.tensor(1.0)), min(theirs, torch.tensor(1.0))
        if name == "resizemix":
            theirs = torch.tensor(1.0 if (mask[b] == 0).any() else 0.0)  # the whole partner is shown
        by_area = mask[b].mean()
        expected = blend * own / (own + theirs) + (1 - blend) * by_area
        assert plan.lam[b].item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(plan.weights.sum(1), torch.ones(6))


def test_without_any_saliency_labels_go_by_area():
    mixer = build_mixer("cutmix", num_classes=CLASSES, label_by="saliency")
    plan = mixer.plan(torch.rand(6, 3, 16, 16), saliency=torch.zeros(6, 16, 16))
    torch.testing.assert_close(plan.lam, plan.mask.mean((1, 2, 3)))


def test_labels_by_saliency_need_a_map_and_a_method_that_follows_its_mask():
    with pytest.raises(ValueError, match=r"CutMix needs saliency=\(B,H,W\)"):
        build_mixer("cutmix", num_classes=CLASSES, label_by="saliency").plan(torch.rand(2, 3, 8, 8))
    for name in ("mixup-x", "comixup", "samplepairing"):
        with pytest.raises(ValueError, match="needs a method whose label follows its mask"):
            build_mixer(name, num_classes=CLASSES, label_by="saliency")


def test_a_composite_weighs_by_the_saliency_that_its_method_shows():
    mixer = build_mixer("resizemix+cutmix", num_classes=CLASSES, label_by="saliency")
    assert mixer.saliency_kind == "static"
    images, saliency = torch.rand(6, 3, 16, 16), torch.rand(6, 16, 16)
    chosen = set()
    for seed in range(8):
        plan = mixer.plan(images, saliency=saliency, generator=torch.Generator().manual_seed(seed))
        single = mixer.mixers[plan.choice].with_labels(by="saliency")
        shown = single.shown_saliency(saliency, plan)
        torch.testing.assert_close(plan.lam, shown[:, 0] / shown.sum(1))
        chosen.add(plan.choice)
    assert chosen == {0, 1}


# Boxes


def boxes_of(count, size, generator):
    corner = torch.rand(count, 3, 2, generator=generator) * size * 0.6
    return [torch.cat((c, c + 2 + torch.rand(3, 2, generator=generator) * size * 0.35), 1) for c in corner]


@pytest.mark.parametrize("name", IN_PLACE)
def test_boxes_are_clipped_to_the_pixels_that_show_their_image(name):
    # Oracle: pixel by pixel, the extent of what is shown inside the box.
    mixer, _, plan = made(name, size=(24, 24))
    boxes = boxes_of(6, 24, torch.Generator().manual_seed(5))
    labels = [torch.tensor([10 * b, 10 * b + 1, 10 * b + 2]) for b in range(6)]
    found = mixer.mix_boxes(boxes, labels, plan, min_visible=0.25)
    for b in range(6):
        expected = []
        own, partner = plan.sources[b, :2].tolist()
        mask = plan.mask[b, 0].tolist()
        for which, source in enumerate((own, partner)):
            if which and own == partner:
                continue
            for (left, top, right, bottom), label in zip(boxes[source].tolist(), labels[source].tolist(), strict=True):
                pixels = [
                    (y, x, 1.0 if own == partner else mask[y][x] if which == 0 else 1 - mask[y][x])
                    for y in range(math.floor(top), math.ceil(bottom))
                    for x in range(math.floor(left), math.ceil(right))
                ]
                shown = [pixel for pixel in pixels if pixel[2] > 0]
                if len(shown) < 0.25 * len(pixels) or not shown:
                    continue
                ys, xs, share = zip(*shown, strict=True)
                box = (max(left, min(xs)), max(top, min(ys)), min(right, max(xs) + 1), min(bottom, max(ys) + 1))
                expected.append((*box, label, sum(share) / len(share)))
        rows = torch.cat((found.boxes[b], found.labels[b][:, None], found.weights[b][:, None]), 1)
        torch.testing.assert_close(rows, torch.tensor(expected).view(-1, 6), atol=1e-4, rtol=1e-5)


def test_resized_partners_keep_their_boxes_in_the_pasted_box():
    mixer, _, plan = made("resizemix", size=(32, 32))
    boxes = [torch.tensor([[0.0, 0.0, 32.0, 32.0], [8.0, 16.0, 24.0, 32.0]]) for _ in range(6)]
    found = mixer.mix_boxes(boxes, [torch.tensor([1, 2])] * 6, plan, min_visible=0.0)
    for b in range(6):
        top, bottom, left, right = plan.geometry[b].tolist()
        whole = found.boxes[b][-2]
        assert whole.tolist() == [left, top, right, bottom]
        half = [left + (right - left) / 4, top + (bottom - top) / 2, left + 3 * (right - left) / 4, bottom]
        torch.testing.assert_close(found.boxes[b][-1], torch.tensor(half))


def test_torchvision_boxes_keep_their_format():
    tv_tensors = pytest.importorskip("torchvision.tv_tensors")
    mixer, _, plan = made("mixup", size=(16, 16))
    boxes = [tv_tensors.BoundingBoxes([[2, 3, 6, 8]], format="XYWH", canvas_size=(16, 16)) for _ in range(6)]
    found = mixer.mix_boxes(boxes, [torch.tensor([4])] * 6, plan)
    for b in range(6):
        assert found.boxes[b].format == tv_tensors.BoundingBoxFormat.XYWH
        assert found.boxes[b].tolist()[0] == [2, 3, 6, 8]
        weights = [1.0] if plan.partner[b] == b else [plan.lam[b].item(), 1 - plan.lam[b].item()]
        assert found.weights[b].tolist() == pytest.approx(weights)


def test_images_without_boxes_stay_without():
    mixer, _, plan = made("cutmix")
    found = mixer.mix_boxes([torch.zeros(0, 4)] * 6, [torch.zeros(0, dtype=torch.int64)] * 6, plan)
    assert [tuple(part.shape) for part in found.boxes] == [(0, 4)] * 6
    assert all(len(part) == 0 for part in (*found.labels, *found.weights))


def test_boxes_need_a_method_that_keeps_things_whole():
    for name in ("puzzlemix", "comixup"):
        mixer, _, plan = made(name)
        with pytest.raises(ValueError, match="boxes need a method that keeps them whole"):
            mixer.mix_boxes([torch.zeros(0, 4)] * 6, [torch.zeros(0)] * 6, plan)
    mixer, _, plan = made("cutmix")
    with pytest.raises(ValueError, match="the plan has 6 samples, got 5 boxes and 6 labels"):
        mixer.mix_boxes([torch.zeros(0, 4)] * 5, [torch.zeros(0)] * 6, plan)
    with pytest.raises(ValueError, match=r"boxes must be \(N,4\)"):
        mixer.mix_boxes([torch.zeros(3, 5)] * 6, [torch.zeros(3)] * 6, plan)


def test_public_names():
    assert mixgan.choose_partner is choose_partner
    assert mixgan.MixedBoxes.__name__ == "MixedBoxes"
