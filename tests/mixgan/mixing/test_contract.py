"""The mixer contract of docs/architecture.md over every registered method: a new method is tested by being registered."""

import inspect
import itertools
import math

import pytest
import torch

from mixgan.mixing import build_mixer, list_mixers
from mixgan.mixing.registry import MIXERS, mixer_options

CLASSES = 5
SHAPES = [(1, 3, 16, 16), (7, 1, 28, 28), (4, 3, 33, 47), (5, 8, 12, 20), (32, 3, 32, 32)]

# Methods that rarely do anything by default do it often here.
OPTIONS = {"patchshuffle": {"p": 0.5}, "disturblabel": {"noise": 0.5}}

# Methods that draw no lambda of their own, and what their plans say instead.
FIXED_LAMBDA = {"erm": 1.0, "label-smoothing": 1.0, "patchshuffle": 1.0, "samplepairing": 0.5}


def unmoved(own, partner, plan):
    return own, partner


def resized_into_boxes(own, partner, plan):
    """The partner as resizemix shows it: the pixel at r is at share (r - top) / (bottom - top) of the whole partner."""
    (height, width), (h, w) = plan.mask.shape[-2:], partner.shape[-2:]
    resized = []
    for image, (top, bottom, left, right) in zip(partner, plan.geometry.tolist(), strict=True):
        rows = [(r * height - top * h) // max(bottom - top, 1) for r in range(h)]
        columns = [(c * width - left * w) // max(right - left, 1) for c in range(w)]
        rows, columns = [min(max(r, 0), h - 1) for r in rows], [min(max(c, 0), w - 1) for c in columns]
        resized.append(image[:, rows][:, :, columns])
    return own, torch.stack(resized)


def shuffled_in_patches(own, partner, plan):
    """The own image as patchshuffle shows it, pixel by pixel."""
    n = math.isqrt(plan.geometry.shape[-1])
    result = own.clone()
    for b, orders in enumerate(plan.geometry.tolist()):
        for row in range(own.shape[2] // n):
            for column in range(own.shape[3] // n):
                for to, source in enumerate(orders[row][column]):
                    pixel = own[b, :, row * n + source // n, column * n + source % n]
                    result[b, :, row * n + to // n, column * n + to % n] = pixel
    return result, partner


def first_pixels(length, blocks):
    """Where the blocks of a side begin, pixel i being of block floor(i * blocks / length), and the length."""
    owner = [i * blocks // length for i in range(length)]
    return [owner.index(block) for block in range(blocks)] + [length]


def moved_in_blocks(own, partner, plan):
    """Both images as puzzlemix shows them: every block from the block that the geometry names, pixel by pixel."""
    m = plan.geometry.shape[-1]
    rows, columns = first_pixels(own.shape[2], m), first_pixels(own.shape[3], m)
    results = []
    for which, images in enumerate((own, partner)):
        result = images.clone()
        for b, i, j in itertools.product(range(len(images)), range(m), range(m)):
            si, sj = divmod(int(plan.geometry[b, which, i, j]), m)
            if (si, sj) == (i, j):
                continue
            ys = [min(rows[si] + y - rows[i], rows[si + 1] - 1) for y in range(rows[i], rows[i + 1])]
            xs = [min(columns[sj] + x - columns[j], columns[sj + 1] - 1) for x in range(columns[j], columns[j + 1])]
            result[b, :, rows[i] : rows[i + 1], columns[j] : columns[j + 1]] = images[b][:, ys][:, :, xs]
        results.append(result)
    return results


# What happens to the images before they are mixed, by the plan's geometry (``moves_pixels``).
MOVES = {"resizemix": resized_into_boxes, "patchshuffle": shuffled_in_patches, "puzzlemix": moved_in_blocks}

# Methods that choose something on the host: torch.compile cannot take their mix whole.
HOST_CHOICES = {"puzzlemix"}


def smoothed(targets, plan):
    return 0.9 * targets + 0.1 / CLASSES


def disturbed(targets, plan):
    noise = OPTIONS["disturblabel"]["noise"]
    rows = [
        torch.eye(CLASSES, dtype=targets.dtype)[math.floor(u / noise * CLASSES)] if u < noise else row
        for row, u in zip(targets, plan.drawn.tolist(), strict=True)
    ]
    return torch.stack(rows)


# What happens to the weighted sum of the sources' labels.
LABELS = {"label-smoothing": smoothed, "disturblabel": disturbed}


def blocks_of_group(images, plan, others):
    """The images as comixup mixes them, pixel by pixel: a block of column 0 is own, others are of the group or from others."""
    result = torch.empty_like(images)
    n, (height, width) = plan.geometry.shape[-1], images.shape[2:]
    for b, y, x in itertools.product(range(len(images)), range(height), range(width)):
        column = int(plan.geometry[b, y * n // height, x * n // width])
        source = images[plan.sources[b, column]] if column == 0 or others is None else others[b]
        result[b, :, y, x] = source[:, y, x]
    return result


# Methods of more than two images, which have no mask.
WITHOUT_MASK = {"comixup": blocks_of_group}


def expected_images(mixer, images, plan, *, others=None, mask=None):
    """The definition of mixing, written out: mask * own + (1 - mask) * partner, both as they are after moving."""
    name = name_of(mixer)
    if name in WITHOUT_MASK:
        return WITHOUT_MASK[name](images, plan, others)
    partner = images[plan.partner] if others is None else others
    own, partner = MOVES.get(name, unmoved)(images, partner, plan)
    mask = plan.mask if mask is None else mask
    return mask * own + (1 - mask) * partner


def batch(shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(shape, generator=generator).to(dtype)
    labels = torch.randint(CLASSES, shape[:1], generator=generator)
    saliency = torch.rand(shape[0], *shape[2:], generator=generator)
    return images, labels, saliency


def name_of(mixer):
    return next(key for key, value in MIXERS.items() if type(mixer) is value)


def mix(mixer, images, labels, saliency=None, **kwargs):
    saliency = saliency if mixer.saliency_kind else None
    return mixer.mix(images, labels, saliency=saliency, **kwargs)


def build_seeded(name, seed=1):
    torch.manual_seed(seed)
    return build_mixer(name, num_classes=CLASSES, **OPTIONS.get(name, {}))


@pytest.fixture(params=list_mixers())
def mixer(request):
    return build_seeded(request.param)


def test_exceptions_are_those_that_the_methods_declare():
    assert {name for name, method in MIXERS.items() if method.moves_pixels} == set(MOVES)
    images, labels, saliency = batch((4, 3, 16, 16))
    plans = {name: mix(build_seeded(name), images, labels, saliency).plan for name in MIXERS}
    assert {name for name, plan in plans.items() if plan.choice is not None} == HOST_CHOICES
    assert {name for name, method in MIXERS.items() if not method.label_follows_mask} == {
        *("mixup-x", "mixup-l", "mixup-xl", "samplepairing", "label-smoothing", "disturblabel", "comixup")
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_target_sums(mixer, shape, dtype):
    images, labels, saliency = batch(shape, dtype)
    mixed = mix(mixer, images, labels, saliency)
    assert mixed.images.shape == images.shape
    assert mixed.images.dtype == dtype
    assert mixed.targets.shape == (shape[0], CLASSES)
    assert mixed.targets.dtype == torch.float32
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(shape[0]), atol=1e-6, rtol=0)
    assert (mixed.targets >= 0).all()
    plan = mixed.plan
    assert plan.drawn.shape == (shape[0],)
    assert torch.equal(plan.sources[:, 0], torch.arange(shape[0]))
    assert ((plan.sources >= 0) & (plan.sources < shape[0])).all()
    torch.testing.assert_close(plan.weights.sum(1), torch.ones(shape[0]), atol=1e-6, rtol=0)
    assert (plan.mask is None) == (name_of(mixer) in WITHOUT_MASK)
    if plan.mask is not None:
        assert plan.mask.shape == (shape[0], 1, *shape[2:])
        assert plan.mask.dtype == torch.float32
        assert 0 <= plan.mask.min() <= plan.mask.max() <= 1


@pytest.mark.parametrize("shape", SHAPES)
def test_label_weight_is_the_mean_of_the_mask_where_it_follows(mixer, shape):
    images, labels, saliency = batch(shape)
    mixed = mix(mixer, images, labels, saliency)
    if mixer.label_follows_mask:
        mean = mixed.mask.mean((1, 2, 3))
        assert (mixed.lam - mean).abs().max() <= 1 / (shape[2] * shape[3])
        assert (mixed.lam - mean).abs().max() <= 1e-5  # areas really used, not lambda as drawn


def test_mask_weighs_the_own_image(mixer):
    images, labels, saliency = batch((6, 3, 20, 21))
    mixed = mix(mixer, images, labels, saliency)
    expected = expected_images(mixer, images, mixed.plan)
    torch.testing.assert_close(mixed.images, expected, atol=1e-6, rtol=1e-6)


def test_hard_labels_give_the_weights(mixer):
    # Oracle: sum of one-hot rows weighted by the plan, in float64.
    images, labels, saliency = batch((9, 3, 16, 16))
    mixed = mix(mixer, images, labels, saliency)
    one_hot = torch.eye(CLASSES, dtype=torch.float64)
    expected = sum(
        mixed.plan.weights[:, m, None].double() * one_hot[labels[mixed.plan.sources[:, m]]]
        for m in range(mixed.plan.sources.shape[1])
    )
    expected = LABELS.get(name_of(mixer), lambda targets, plan: targets)(expected, mixed.plan)
    torch.testing.assert_close(mixed.targets.double(), expected, atol=1e-6, rtol=0)


def test_soft_labels_agree_with_hard_ones(mixer):
    images, labels, saliency = batch((6, 3, 16, 16))
    mixed = mix(mixer, images, labels, saliency)
    soft = mixer.targets(torch.eye(CLASSES)[labels], mixed.plan)
    torch.testing.assert_close(soft, mixed.targets, atol=1e-6, rtol=0)


def test_inputs_stay_as_they_are(mixer):
    images, labels, saliency = batch((6, 3, 16, 16))
    before = images.clone(), labels.clone(), saliency.clone()
    mix(mixer, images, labels, saliency)
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert torch.equal(saliency, before[2])


def test_replay_of_a_plan_gives_the_same_bits(mixer):
    images, labels, saliency = batch((6, 3, 16, 16))
    mixed = mix(mixer, images, labels, saliency)
    assert torch.equal(mixer.mix_images(images, mixed.plan), mixed.images)
    assert torch.equal(mixer.targets(labels, mixed.plan), mixed.targets)


def test_same_generator_gives_the_same_bits_and_global_state_is_not_used(mixer):
    images, labels, saliency = batch((8, 3, 16, 16))
    state = torch.get_rng_state()
    first = mix(mixer, images, labels, saliency, generator=torch.Generator().manual_seed(3))
    second = mix(mixer, images, labels, saliency, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.plan.sources, second.plan.sources)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_global_seed_reproduces_a_batch(mixer):
    images, labels, saliency = batch((8, 3, 16, 16))
    name = name_of(mixer)
    first, second = (mix(build_seeded(name, seed=5), images, labels, saliency) for _ in range(2))
    assert torch.equal(first.images, second.images)


def test_others_replace_the_partner(mixer):
    images, labels, saliency = batch((6, 3, 16, 16))
    others, other_labels, _ = batch((6, 3, 16, 16), seed=9)
    mixed = mix(mixer, images, labels, saliency, others=others, other_labels=other_labels)
    expected = expected_images(mixer, images, mixed.plan, others=others)
    torch.testing.assert_close(mixed.images, expected, atol=1e-6, rtol=1e-6)
    one_hot = torch.eye(CLASSES)
    expected = mixed.lam[:, None] * one_hot[labels] + (1 - mixed.lam[:, None]) * one_hot[other_labels]
    expected = LABELS.get(name_of(mixer), lambda targets, plan: targets)(expected, mixed.plan)
    torch.testing.assert_close(mixed.targets, expected, atol=1e-6, rtol=0)


def test_a_single_image_mixes_with_others(mixer):
    images, labels, saliency = batch((1, 3, 16, 16))
    others = 1 - images
    mixed = mix(mixer, images, labels, saliency, others=others)
    expected = expected_images(mixer, images, mixed.plan, others=others)
    torch.testing.assert_close(mixed.images, expected, atol=1e-6, rtol=1e-6)


def test_plan_applies_to_features_of_another_size(mixer):
    images, labels, saliency = batch((6, 3, 32, 32))
    plan = mix(mixer, images, labels, saliency).plan
    features = torch.rand(6, 10, 8, 8)
    mixed = mixer.mix_images(features, plan)
    # Oracle: area average of 4 x 4 pixels.
    mask = None if plan.mask is None else plan.mask.reshape(6, 1, 8, 4, 8, 4).mean((3, 5))
    expected = expected_images(mixer, features, plan, mask=mask)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)


def test_channels_last_is_kept(mixer):
    images, labels, saliency = batch((6, 3, 16, 16))
    expected = mix(mixer, images, labels, saliency, generator=torch.Generator().manual_seed(0)).images
    strided = images.to(memory_format=torch.channels_last)
    mixed = mix(mixer, strided, labels, saliency, generator=torch.Generator().manual_seed(0)).images
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(mixed, expected)


def test_lambda_differs_within_a_batch_unless_shared(mixer):
    images, labels, saliency = batch((32, 3, 32, 32))
    name = name_of(mixer)
    drawn = mix(mixer, images, labels, saliency).plan.drawn
    if name in FIXED_LAMBDA:
        assert torch.equal(drawn, torch.full((32,), FIXED_LAMBDA[name]))
    else:
        assert drawn.unique().numel() > 16
    if "per_batch" not in mixer_options(name):
        assert name in (*FIXED_LAMBDA, "disturblabel")  # nothing to share: each sample keeps its image
        return
    shared = build_mixer(name, num_classes=CLASSES, per_batch=True)
    plan = mix(shared, images, labels, saliency).plan
    assert plan.drawn.unique().numel() == 1
    assert plan.partner.unique().numel() == 32


def test_a_given_lambda_is_used(mixer):
    images, labels, saliency = batch((4, 3, 16, 16))
    lam = torch.tensor([0.0, 0.25, 0.5, 1.0])
    drawn = mix(mixer, images, labels, saliency, lam=lam).plan.drawn
    assert torch.equal(drawn, lam) or torch.equal(drawn, torch.ones(4))


def test_unknown_option_is_an_error_that_names_the_known(mixer):
    name = name_of(mixer)
    with pytest.raises(ValueError, match="has no option 'alhpa'; it knows: ") as error:
        build_mixer(name, num_classes=CLASSES, alhpa=1.0)
    for option in mixer_options(name):
        assert option in str(error.value)


def test_every_option_has_a_default_and_every_method_says_where_it_comes_from(mixer):
    assert all(p.default is not inspect.Parameter.empty for p in mixer_options(name_of(mixer)).values())
    assert type(mixer).source
    assert type(mixer).__doc__


def test_mix_images_and_targets_compile_whole_for_changing_batch_sizes(mixer):
    torch.compiler.reset()  # the methods share code objects: each would count as one recompilation of the first
    mix_images = torch.compile(mixer.mix_images, fullgraph=True, backend="eager")
    targets = torch.compile(mixer.targets, fullgraph=True, backend="eager")
    for count in (6, 4, 9):
        images, labels, saliency = batch((count, 3, 16, 16))
        plan = mix(mixer, images, labels, saliency).plan
        torch.testing.assert_close(mix_images(images, plan), mixer.mix_images(images, plan))
        torch.testing.assert_close(targets(labels, plan), mixer.targets(labels, plan))


@pytest.mark.parametrize("name", [name for name in list_mixers() if name not in HOST_CHOICES])
def test_mix_compiles_whole_for_changing_batch_sizes(name):
    mixer = build_seeded(name)
    torch.compiler.reset()
    compiled = torch.compile(mixer.mix, fullgraph=True, backend="eager")
    for count in (6, 4, 9):
        images, labels, saliency = batch((count, 3, 16, 16))
        mixed = compiled(images, labels, saliency=saliency if mixer.saliency_kind else None)
        expected = expected_images(mixer, images, mixed.plan)
        torch.testing.assert_close(mixed.images, expected, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(mixer.targets(labels, mixed.plan), mixed.targets)


def test_a_given_partner_is_used(mixer):
    images, labels, saliency = batch((4, 3, 16, 16))
    partner = torch.tensor([1, 1, 3, 0], dtype=torch.int32)
    if name_of(mixer) in WITHOUT_MASK:
        with pytest.raises(ValueError, match="takes no partner"):
            mix(mixer, images, labels, saliency, partner=partner)
        return
    mixed = mix(mixer, images, labels, saliency, partner=partner)
    assert torch.equal(mixed.partner, partner.long())
    torch.testing.assert_close(mixed.images, expected_images(mixer, images, mixed.plan), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("traced", [False, True])
def test_nan_and_inf_stay_where_the_mask_shows_them(mixer, bad, traced):
    images, labels, saliency = batch((6, 3, 16, 16))
    others = torch.rand(6, 3, 16, 16)
    plan = mix(mixer, images, labels, saliency, lam=torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])).plan
    clean = mixer.mix_images(images, plan, others=others)
    torch.compiler.reset()
    mix_images = torch.compile(mixer.mix_images, fullgraph=True, backend="eager") if traced else mixer.mix_images
    for own in (True, False):
        own_images, other_images = images.clone(), others.clone()
        (own_images if own else other_images)[:, :, 5, 7] = bad
        mixed = mix_images(own_images, plan, others=other_images)
        # The definition, with the bad pixels marked: they reach all and only the places that they have a weight at.
        mark = torch.zeros_like(images)
        mark[:, :, 5, 7] = 1.0
        zero = torch.zeros_like(images)
        hit = mixer.mix_images(mark if own else zero, plan, others=zero if own else mark) != 0
        assert torch.equal(mixed.isfinite(), ~hit)
        assert torch.equal(mixed[~hit], clean[~hit])


def test_masks_of_zero_and_one_keep_a_nan_from_the_partner():
    images, labels, _ = batch((8, 3, 16, 16))
    others = torch.full_like(images, math.nan)
    for name in ("cutmix", "mixup-hv", "gridmix", "fmix", "resizemix"):
        mixed = build_seeded(name).mix(images, labels, others=others)
        own = (mixed.mask == 1).expand_as(images)
        assert own.any()
        assert torch.equal(mixed.images[own], images[own])
        assert mixed.images[~own].isnan().all()


def test_gradients_of_selected_pixels_are_finite(mixer):
    images, labels, saliency = batch((4, 3, 16, 16))
    plan = mix(mixer, images, labels, saliency).plan
    others = torch.rand_like(images)
    others[:, :, 5, 7] = math.nan
    images.requires_grad_()
    mixer.mix_images(images, plan, others=others).nan_to_num().sum().backward()
    assert images.grad.isfinite().all()


def test_targets_are_float32_whatever_comes_in(mixer):
    images, labels, saliency = batch((4, 3, 16, 16))
    mixed = mix(mixer, images, labels, saliency, lam=torch.tensor([0.1, 0.2, 0.7, 1.0], dtype=torch.float64))
    assert {tensor.dtype for tensor in (mixed.targets, mixed.lam, mixed.plan.drawn)} == {torch.float32}
    one_hot = torch.nn.functional.one_hot(labels, CLASSES)
    for soft in (one_hot, one_hot.double(), one_hot.bool(), one_hot.half()):
        targets = mixer.targets(soft, mixed.plan, other_labels=soft)
        assert targets.dtype == torch.float32
        torch.testing.assert_close(targets, mixer.targets(labels, mixed.plan, other_labels=labels))


@pytest.mark.parametrize("bad", [math.nan, -0.1, 1.5, math.inf])
def test_a_lambda_out_of_range_is_refused(mixer, bad):
    images, labels, saliency = batch((3, 3, 16, 16))
    with pytest.raises(ValueError, match=rf"lam must be in \[0, 1\], got {bad}"):
        mix(mixer, images, labels, saliency, lam=torch.tensor([0.5, bad, 0.5]))


@pytest.mark.parametrize("name", [name for name in list_mixers() if name not in HOST_CHOICES])
def test_in_a_compiled_call_lambda_is_clamped(name):
    mixer = build_seeded(name)
    images, _, saliency = batch((4, 3, 16, 16))
    torch.compiler.reset()
    compiled = torch.compile(mixer.plan, fullgraph=True, backend="eager")
    saliency = saliency if mixer.saliency_kind else None
    plan = compiled(images, saliency=saliency, lam=torch.tensor([math.nan, -1.0, 2.0, 0.5]))
    assert plan.drawn.tolist() in ([0.0, 0.0, 1.0, 0.5], [1.0] * 4)
    torch.testing.assert_close(plan.weights.sum(1), torch.ones(4))
    assert mixer.mix_images(images, plan).isfinite().all()


def test_gradients_flow_to_both_images(mixer):
    images, labels, saliency = batch((4, 3, 16, 16))
    images.requires_grad_()
    others = torch.rand_like(images).requires_grad_()
    lam = torch.full((4,), 0.5)
    mixed = mix(mixer, images, labels, saliency, others=others, lam=lam)
    # The definition's own gradient; d/dx (own) = mask and d/dx (other) = 1 - mask where no pixel moves.
    slow = expected_images(mixer, images, mixed.plan, others=others)
    own, other = torch.autograd.grad(slow.sum(), (images, others), allow_unused=True, materialize_grads=True)
    if not mixer.moves_pixels and mixed.mask is not None:
        torch.testing.assert_close(own, mixed.mask.expand_as(own))
    found = torch.autograd.grad(mixed.images.sum(), (images, others), allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(found, (own, other))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_synchronisation_on_a_gpu(mixer):
    images, labels, saliency = (x.cuda() for x in batch((32, 3, 32, 32)))
    mix(mixer, images, labels, saliency)
    torch.cuda.set_sync_debug_mode("error")
    try:
        mixed = mix(mixer, images, labels, saliency)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert mixed.images.device.type == "cuda"
