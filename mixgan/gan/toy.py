"""Mixup's GAN experiment in two dimensions: does mixing real and generated points help a GAN to reach every mode?

The experiment of mixup (Zhang et al. 2018, "Stabilization of generative adversarial networks") and the smallest example of this
library: two perceptrons, the losses of ``mixgan.gan.losses`` and a mixer. The variants differ in the discriminator's loss:

    none           L(D(real), 1) + L(D(fake), 0), halved
    replace        L(D(lam real + (1 - lam) fake), lam) instead: mixup's GAN, Eq. 3 of MixCycleGAN
    add            none + replace
    hidden         none + the mixed term with the features of D's first layer mixed (Manifold Mixup's GAN)
    r1             none + gamma/2 |grad D(real)|^2
    relativistic   R3GAN: softplus(D(fake) - D(real)) + gamma/2 |grad D|^2 on real and on generated points

L is the cross-entropy. A run is measured by the modes it reaches, the share of its points near one, and how even they are.
All runs of a variant train at once, as networks side by side in batched matrix products.
"""

import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from mixgan.engine.annotations import Above0, AtLeast1, BelowOne, Seed
from mixgan.engine.config import Settings, read_options
from mixgan.gan.losses import discriminator_loss, gan_loss, generator_loss, gradient_penalty
from mixgan.mixing import Mixup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Variant = Literal["none", "replace", "add", "hidden", "r1", "relativistic"]
Data = Literal["ring", "grid"]
#: Deviation of the points around their mode, and how many deviations count as near.
SIGMA, NEAR = 0.05, 4.0
#: Generated points that are evaluated; a mode is reached by a tenth of its fair share of them.
POINTS, REACHED = 2500, 0.1
LATENT = 2
#: Steps by default, in which most losses learn the set.
STEPS = {"ring": 4000, "grid": 8000}
#: Evaluations over a run; metrics are means of the last five, as a GAN's samples move from step to step.
EVALUATIONS, LAST = 20, 5


@dataclass(frozen=True, kw_only=True)
class ToyOptions(Settings):
    """Train small GANs on a ring of 8 and a grid of 25 Gaussians, with and without mixing in D, and compare them."""

    output_dir: Path = Path("runs/toy-gan")
    """Folder of results.json, table.md and the pictures."""
    variants: str = "all"
    """all, or names separated by commas: none, replace, add, hidden, r1, relativistic."""
    data: str = "ring,grid"
    """ring, grid, or both."""
    seeds: AtLeast1 = 5
    """Runs of a variant, each with its own weights and points; they train at once."""
    seed: Seed = 0
    """Of all random numbers."""
    steps: AtLeast1 | None = None
    """Steps of the discriminator; by default 4,000 on the ring and 8,000 on the grid."""
    d_steps: AtLeast1 = 1
    """Steps of the discriminator for each one of the generator; 5 in mixup's paper."""
    batch_size: AtLeast1 = 128
    """Real points, and generated ones, in a step."""
    lr: Above0 = 1e-3
    """Learning rate of both Adam optimizers."""
    beta1: BelowOne = 0.5
    """Adam's average of gradients; 0.9 in mixup's paper."""
    alpha: Above0 = 0.2
    """lambda ~ Beta(alpha, alpha)."""
    gamma: Above0 = 1.0
    """Weight of the gradient penalties of r1 and relativistic."""
    width: AtLeast1 = 64
    """Units in each of the three hidden layers of both networks; 512 in mixup's paper."""
    jobs: AtLeast1 = 2
    """Variants at the same time, with one thread each."""


@dataclass(frozen=True)
class Result:
    """One run. Metrics are those of ``measure``, means of the last evaluations; points: step -> (POINTS,2), of the first run."""

    data: Data
    variant: Variant
    run: int
    metrics: dict[str, float]
    points: dict[int, Tensor]


def modes(data: Data) -> Tensor:
    """The centres (M,2): 8 on a circle of radius 2, or 25 on a grid of distance 1."""
    if data == "ring":
        angle = torch.arange(8) * (2 * math.pi / 8)
        return 2 * torch.stack((angle.cos(), angle.sin()), 1)
    side = torch.arange(5.0) - 2
    return torch.cartesian_prod(side, side)


def measure(points: Tensor, centres: Tensor) -> dict[str, float]:
    """How well points (N,2) cover the modes (M,2).

    Returns:
        modes: reached by a tenth of their fair share of points near them. near: share of points within 4 sigma of a mode.
        kl: Kullback-Leibler divergence in nats of the points' nearest modes from equal shares; log M where all are at one mode.
    """
    distance, nearest = torch.cdist(points, centres).min(1)
    near = distance <= NEAR * SIGMA
    reached = torch.bincount(nearest[near], minlength=len(centres)) >= REACHED * len(points) / len(centres)
    share = torch.bincount(nearest, minlength=len(centres)).double() / len(points)
    kl = torch.special.xlogy(share, share * len(centres)).sum()
    return {"modes": float(reached.sum()), "near": float(near.double().mean()), "kl": float(kl)}


class Linear(nn.Module):
    """S linear layers side by side, initialised as ``nn.Linear``: (S*B, inputs) to (S*B, outputs), the first B by the first."""

    def __init__(self, seeds: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.empty(seeds, rows, outputs).uniform_(-1, 1) / math.sqrt(inputs)) for rows in (inputs, 1)
        )

    def forward(self, points: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, points.unflatten(0, (len(self.bias), -1)), self.weight).flatten(0, 1)


def perceptron(seeds: int, inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Three hidden layers of ``width`` units; ``[:2]`` is the first one, ``[2:]`` the rest."""
    sizes = [inputs, width, width, width]
    hidden = [part for size in sizes[:-1] for part in (Linear(seeds, size, width), nn.ReLU())]
    return nn.Sequential(*hidden, Linear(seeds, width, outputs))


def d_loss(D: nn.Sequential, real: Tensor, fake: Tensor, variant: Variant, *, alpha: float, gamma: float) -> Tensor:
    """The discriminator's loss on real and generated points (N,2); see the head of this file."""
    if variant == "relativistic":
        penalty = gradient_penalty(D, real) + gradient_penalty(D, fake)
        return discriminator_loss(D(real), D(fake), kind="relativistic") + gamma * penalty
    loss = torch.zeros(()) if variant == "replace" else discriminator_loss(D(real), D(fake), kind="bce")
    if variant == "r1":
        loss = loss + gamma * gradient_penalty(D, real)
    if variant in ("replace", "add", "hidden"):
        first, rest = (D[:2], D[2:]) if variant == "hidden" else (nn.Identity(), D)
        mixer = Mixup(num_classes=1, alpha=alpha)
        real, fake = first(real)[:, :, None, None], first(fake)[:, :, None, None]  # to a mixer, images of one pixel
        plan = mixer.plan(real, partner=torch.arange(len(real)))  # each real point with the fake of its number
        mixed = mixer.mix_images(real, plan, others=fake)
        loss = loss + gan_loss(rest(mixed.flatten(1)), plan.lam, kind="bce")
    return loss


def train(data: Data, variant: Variant, options: ToyOptions) -> list[Result]:
    """All runs of a variant on one thread: d_steps of D, then one of the generator G, on fresh points each."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    seeds, count, centres = options.seeds, options.seeds * options.batch_size, modes(data)
    G, D = perceptron(seeds, LATENT, options.width, 2), perceptron(seeds, 2, options.width, 1)
    adam_g, adam_d = (
        torch.optim.Adam(n.parameters(), lr=options.lr, betas=(options.beta1, 0.999), fused=True) for n in (G, D)
    )
    kind: Literal["relativistic", "bce"] = "relativistic" if variant == "relativistic" else "bce"
    latent = torch.randn(seeds * POINTS, LATENT)
    steps = options.steps or STEPS[data]
    metrics, points = [], {}

    def sample_real() -> Tensor:
        return centres[torch.randint(len(centres), (count,))] + SIGMA * torch.randn(count, 2)

    for step in range(1, steps + 1):
        real = sample_real()
        with torch.no_grad():
            fake = G(torch.randn(count, LATENT))
        loss = d_loss(D, real, fake, variant, alpha=options.alpha, gamma=options.gamma)
        adam_d.zero_grad()
        (loss * seeds).backward()  # a mean over all runs' points: each network's gradient is that of training alone
        adam_d.step()

        if step % options.d_steps == 0:
            D.requires_grad_(False)
            fake = G(torch.randn(count, LATENT))
            loss = generator_loss(D(fake), D(sample_real()) if kind == "relativistic" else None, kind=kind)
            adam_g.zero_grad()
            (loss * seeds).backward()
            adam_g.step()
            D.requires_grad_(True)

        if step % max(1, steps // EVALUATIONS) == 0 or step == steps:
            with torch.no_grad():
                generated = G(latent).unflatten(0, (seeds, POINTS))
            metrics.append([measure(own, centres) for own in generated])
            points[step] = generated[0]
    results = []
    for number, last in enumerate(zip(*metrics[-LAST:], strict=True)):
        means = {name: sum(m[name] for m in last) / len(last) for name in last[0]}
        results.append(Result(data, variant, number, means, points if number == 0 else {}))
    return results


def main(argv: Sequence[str]) -> None:
    """The command recipes/toy_gan.py."""
    options, _ = read_options(ToyOptions, argv, prog="mixgan toy-gan")
    variants, sets = _names("variants", options.variants, Variant), _names("data", options.data, Data)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    runs = [(data, variant, options) for data in sets for variant in variants]
    jobs = min(options.jobs, len(runs), os.cpu_count() or 1)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train, *run) for run in runs]
        for number, future in enumerate(as_completed(futures), 1):
            print(f"{number}/{len(runs)}\n{table_of(future.result())}", flush=True)
        results = [result for future in futures for result in future.result()]
    for data in sets:
        draw([result for result in results if result.data == data]).savefig(options.output_dir / f"{data}.png", dpi=80)
    table = table_of(results)
    (options.output_dir / "table.md").write_text(table)
    records = [{"data": r.data, "variant": r.variant, "run": r.run, **r.metrics} for r in results]
    settings = {name: str(value) for name, value in asdict(options).items()}
    (options.output_dir / "results.json").write_text(json.dumps({"settings": settings, "runs": records}, indent=1))
    print(f"{table}\nPictures and results: {options.output_dir}")


def table_of(results: Sequence[Result]) -> str:
    """Markdown: mean and 95 % interval over the runs, for every data set and variant."""
    rows = [
        "| data | variant | modes reached | points within 4 sigma | KL of mode counts |\n| --- | --- | --- | --- | --- |"
    ]
    for data, variant in dict.fromkeys((result.data, result.variant) for result in results):
        own = [result.metrics for result in results if (result.data, result.variant) == (data, variant)]
        cells = [
            f"{interval([m['modes'] for m in own], 1)} of {len(modes(data))}",
            f"{interval([100 * m['near'] for m in own], 1)} %",
            interval([m["kl"] for m in own], 2),
        ]
        rows.append(f"| {data} | `{variant}` | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def interval(values: Sequence[float], digits: int) -> str:
    """The mean of runs and, for two or more, the half width of its 95 % interval by Student's t: ``7.5 ± 0.4``."""
    from mixgan.report.seeds import spread

    found = spread(values)
    return f"{found.mean:.{digits}f}" + ("" if found.ci95 is None else f" ± {found.ci95:.{digits}f}")


def draw(results: Sequence[Result]) -> "Figure":
    """The first run's points over time: one row per variant, five columns of steps, real modes in orange."""
    from matplotlib.figure import Figure

    shown = [result for result in results if result.points]
    steps = sorted(shown[0].points)
    steps = sorted({steps[round(k * (len(steps) - 1))] for k in (0, 0.1, 0.25, 0.5, 1)})
    figure = Figure(figsize=(1.7 * len(steps), 1.75 * len(shown)), layout="constrained")
    grid = figure.subplots(len(shown), len(steps), squeeze=False)
    for row, result in zip(grid, shown, strict=True):
        for axes, step in zip(row, steps, strict=True):
            axes.scatter(*modes(result.data).T, s=60, c="#E69F00", alpha=0.5, linewidths=0)
            axes.scatter(*result.points[step][:1000].T, s=1.5, c="#0072B2", linewidths=0)
            axes.set(xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[], aspect="equal")
            axes.set_title(f"step {step}" if result is shown[0] else "", fontsize=9)
        row[0].set_ylabel(result.variant, fontsize=9)
    return figure


def _names(flag: str, text: str, choices: Any) -> list[Any]:
    names = get_args(choices) if text == "all" else text.split(",")
    for name in names:
        if name not in get_args(choices):
            raise ValueError(f"--{flag}: unknown name {name!r}; choose from {', '.join(get_args(choices))}")
    return list(names)
