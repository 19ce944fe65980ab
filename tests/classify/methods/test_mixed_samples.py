"""Options of the mixers' training method: losses, the clean loss, the reused pass, the top-2 figures."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.config import settings_from
from classify.methods import Method, MixSchedule, build_method
from classify.methods.method import top2_metrics

CLASSES = 5


def network(*, norm: bool = False) -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES)]
    return nn.Sequential(*layers[:1], *([nn.BatchNorm2d(8)] if norm else []), *layers[1:])


def batch(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, 3, 8, 8, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def build(name: str, net: nn.Module, **options: object) -> Method:
    torch.manual_seed(4)
    return build_method(name, net, num_classes=CLASSES, options=options)


def step(method: Method) -> dict[str, Tensor]:
    """Logs and gradients of one step under seed 3."""
    torch.manual_seed(3)
    output = method(*batch())
    output.loss.backward()
    return output.logs | {name: parameter.grad for name, parameter in method.named_parameters()}


@pytest.mark.parametrize(("loss", "scale"), [("soft-ce", 1.0), ("bce", 2 / CLASSES)])
def test_the_clean_loss_is_added(loss: str, scale: float):
    images, labels = batch()
    with_clean = build("mixup", network(), loss=loss, clean_weight=0.5)
    mixed_only = build("mixup", network(), loss=loss)
    clean = F.cross_entropy(with_clean.network(images), labels)
    found, without = step(with_clean), step(mixed_only)
    torch.testing.assert_close(found["loss"], without["loss"] + 0.5 * scale * clean)
    torch.testing.assert_close(found["clean_loss"], clean)
    assert "clean_loss" not in without


@pytest.mark.parametrize("name", ["mixup", "erm"])
def test_smoothing_spreads_a_share_of_the_mixed_label_over_all_classes(name: str):
    # (1-s) t + s/K is linear, and so is the loss: (1-s) times the loss, s times the loss against the uniform distribution
    images, labels = batch()
    plain, smooth = build(name, network()), build(name, network(), smoothing=0.3)
    torch.manual_seed(3)
    unsmoothed = plain(images, labels)
    uniform = -unsmoothed.logits.log_softmax(1).mean()
    found = step(smooth)
    torch.testing.assert_close(found["loss"], 0.7 * unsmoothed.loss.detach() + 0.3 * uniform.detach())
    torch.testing.assert_close(found["accuracy"], unsmoothed.logs["accuracy"])


def test_smoothing_alone_is_the_mixer_label_smoothing():
    alone = build_method("label-smoothing", network(), num_classes=CLASSES, mixer={"smoothing": 0.2})
    torch.testing.assert_close(step(alone)["loss"], step(build("erm", network(), smoothing=0.2))["loss"])


def test_smoothing_is_a_share():
    with pytest.raises(ValueError, match=r"--method.smoothing must be at least 0 and at most 1, got 1.5"):
        build("mixup", network(), smoothing=1.5)


@pytest.mark.parametrize("loss", ["soft-ce", "bce"])
def test_the_reused_pass_changes_nothing_but_the_cost(loss: str):
    # Without batch norm a map from a training pass is the map from eval mode.
    passes = {}
    results = {}
    for reuse in (False, True):
        method = build("puzzlemix", network(), loss=loss, clean_weight=1.0, reuse_forward=reuse)
        calls = passes[reuse] = []
        method.network.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        results[reuse] = step(method)
    assert (len(passes[False]), len(passes[True])) == (3, 2)
    torch.testing.assert_close(results[True], results[False])


def test_batches_that_are_not_mixed_have_one_loss():
    images, labels = batch()
    net = network(norm=True).eval()
    method = build_method(
        "puzzlemix", net, num_classes=CLASSES, schedule=MixSchedule(prob=0.0),
        options={"clean_weight": 1.0, "reuse_forward": True},
    )  # fmt: skip
    output = method(images, labels)
    torch.testing.assert_close(output.loss, F.cross_entropy(net(images), labels))
    assert output.logs.keys() == {"loss", "accuracy"}


@pytest.mark.parametrize("name", ["mixup", "cutmix", "puzzlemix", "comixup"])
def test_top2_metrics_are_of_the_two_main_labels(name: str):
    images, labels = batch()
    method = build(name, network())
    torch.manual_seed(3)
    output = method(images, labels)
    torch.manual_seed(3)
    mixed = method.mixer.mix(images, labels, saliency=method.saliency(method.mixer, images, labels))
    weights = mixed.plan.weights.clone()
    weights[:, 0] = -1
    partner = mixed.plan.sources[torch.arange(12), weights.argmax(1)]
    for figure, value in top2_metrics(output.logits, labels, labels[partner]).items():
        assert torch.equal(output.logs[figure], value)


@pytest.mark.parametrize("name", ["erm", "label-smoothing", "patchshuffle"])
def test_no_top2_metrics_where_nothing_is_paired(name: str):
    assert build(name, network())(*batch()).logs.keys() == {"loss", "accuracy"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mixup", {"clean_weight": -1.0}, "--method.clean-weight must be at least 0, got -1.0"),
        ("mixup", {"loss": "ce"}, "--method.loss must be one of soft-ce, bce, got 'ce'"),
        ("puzzlemix", {"reuse_forward": True}, "it needs --method.clean-weight above 0"),
        ("cutmix", {"clean_weight": 1.0, "reuse_forward": True}, "for gradient saliency; CutMix uses none"),
    ],
)
def test_options_that_do_not_fit(name: str, options: dict[str, object], message: str):
    with pytest.raises(ValueError, match=message):
        build(name, network(), **options)


def test_options_are_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    words = ["--method", "puzzlemix", "--method.clean-weight", "1", "--method.reuse-forward", "--method.loss", "bce"]
    assert settings_from(words).method_options == {
            "loss": "bce", "clean_weight": 1.0, "reuse_forward": True, "smoothing": 0.0,
        }  # fmt: skip


@pytest.mark.parametrize("policy", ["random", "same", "other"])
def test_partners_are_those_of_the_policy(policy):
    # The mixed images are read back: every image is its label everywhere, so a mixed pixel names own and partner.
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 8, 8)
    seen = []

    class Reader(torch.nn.Module):
        def forward(self, x):
            seen.append(x)
            return x.mean((2, 3))

    method = build_method("cutmix", Reader(), num_classes=3, schedule=MixSchedule(partner=policy))
    torch.manual_seed(0)
    for _ in range(10):
        method(images, labels)
    pairs = {(b, int(value)) for x in seen for b in range(6) for value in x[b].unique() if int(value) != b}
    same = {bool(labels[b] == labels[partner]) for b, partner in pairs}
    assert same == {"random": {True, False}, "same": {True}, "other": {False}}[policy]


@pytest.mark.parametrize("name", ["erm", "comixup", "label-smoothing"])
def test_partners_are_refused_where_no_pairs_are_mixed(name):
    with pytest.raises(ValueError, match="--partner is for methods that mix pairs"):
        build_method(name, torch.nn.Linear(3, 3), num_classes=3, schedule=MixSchedule(partner="same"))
