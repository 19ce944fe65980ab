"""Mixup's GAN experiment in two dimensions: does mixing real and generated points help a GAN to reach every mode?

The toy of mixup (Zhang et al. 2018, "Stabilization of generative adversarial networks") and the smallest example of this library:
two small networks, the losses of ``mixgan.gan.losses`` and a mixer. The variants differ in the loss of the discriminator D:

    none           L(D(real), 1) + L(D(fake), 0), halved
    replace        L(D(lam real + (1 - lam) fake), lam) instead: mixup's GAN, Eq. 3 of MixCycleGAN
    add            none + replace
    hidden         none + the mixed term with the features of D's first layer mixed (Manifold Mixup's GAN)
    r1             none + gamma/2 |grad D(real)|^2
    relativistic   R3GAN: softplus(D(fake) - D(real)) + gamma/2 |grad D|^2 on real and on generated points

L is the cross-entropy. A run is measured by the modes it reaches, the share of its points near one, and how even they are.
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

from mixgan.engine.annotations import Above0, AtLeast1, Seed
from mixgan.engine.config import Settings, read_options
from mixgan.gan.losses import discriminator_loss, gan_loss, generator_loss, gradient_penalty
from mixgan.mixing import build_mixer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Variant = Literal["none", "replace", "add", "hidden", "r1", "relativistic"]
Data = Literal["ring", "grid"]
#: Deviation of the points around their mode, and how many deviations count as near.
SIGMA, NEAR = 0.05, 4.0
#: Generated points that are evaluated; a mode is reached by a tenth of its fair share of them.
POINTS, REACHED = 2500, 0.1
LATENT, HIDDEN = 2, 512
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
    seeds: AtLeast1 = 2
    """How many seeds, from --seed on; ten give narrow intervals."""
    seed: Seed = 0
    """The first seed."""
    steps: AtLeast1 = 600
    """Steps of both networks."""
    batch_size: AtLeast1 = 64
    """Real points, and generated ones, in a step."""
    lr: Above0 = 5e-4
    """Learning rate of both Adam optimizers (betas 0.5 and 0.999)."""
    alpha: Above0 = 1.0
    """lambda ~ Beta(alpha, alpha)."""
    gamma: Above0 = 1.0
    """Weight of the gradient penalties of r1 and relativistic."""
    width: AtLeast1 = HIDDEN
    """Units in each of the three hidden layers of both networks."""
    jobs: AtLeast1 = 2
    """Runs at the same time, with one thread each."""


@dataclass(frozen=True)
class Result:
    """One run. Metrics are those of ``measure``, means of the last evaluations; points: step -> (POINTS,2), of the first seed."""

    data: Data
    variant: Variant
    seed: int
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


class Discriminator(nn.Module):
    """Points (B,2) to logits (B,1): a first layer, whose features can be mixed, and the rest."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(2, width), nn.LeakyReLU(0.2))
        self.rest = mlp(width, width, 2, 1)

    def forward(self, points: Tensor) -> Tensor:
        logits: Tensor = self.rest(self.first(points))
        return logits


def mlp(inputs: int, width: int, layers: int, outputs: int) -> nn.Sequential:
    """A perceptron with ``layers`` hidden layers of ``width`` units."""
    sizes = [inputs, *[width] * layers]
    hidden = [part for size in sizes[:-1] for part in (nn.Linear(size, width), nn.LeakyReLU(0.2))]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], outputs))


def d_loss(D: Discriminator, real: Tensor, fake: Tensor, variant: Variant, *, alpha: float, gamma: float) -> Tensor:
    """The discriminator's loss on real and generated points (B,2); see the head of this file."""
    if variant == "relativistic":
        penalty = gradient_penalty(D, real) + gradient_penalty(D, fake)
        return discriminator_loss(D(real), D(fake), kind="relativistic") + gamma * penalty
    loss = torch.zeros(()) if variant == "replace" else discriminator_loss(D(real), D(fake), kind="bce")
    if variant == "r1":
        loss = loss + gamma * gradient_penalty(D, real)
    if variant in ("replace", "add", "hidden"):
        if variant == "hidden":
            real, fake = D.first(real), D.first(fake)
        mixer = build_mixer("mixup", num_classes=1, alpha=alpha)
        real, fake = real[:, :, None, None], fake[:, :, None, None]  # to a mixer points are images of one pixel
        plan = mixer.plan(real)
        mixed = mixer.mix_images(real, plan, others=fake).flatten(1)
        loss = loss + gan_loss(D.rest(mixed) if variant == "hidden" else D(mixed), plan.lam, kind="bce")
    return loss


def train(data: Data, variant: Variant, seed: int, options: ToyOptions) -> Result:
    """One run on one thread: a step of D, then one of the generator G, on fresh points each."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    G, D, centres = mlp(LATENT, options.width, 3, 2), Discriminator(options.width), modes(data)
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), lr=options.lr, betas=(0.5, 0.999), fused=True) for n in (G, D))
    kind: Literal["relativistic", "bce"] = "relativistic" if variant == "relativistic" else "bce"
    count, every = options.batch_size, max(1, options.steps // EVALUATIONS)
    metrics, points = [], {}

    def sample_real() -> Tensor:
        return centres[torch.randint(len(centres), (count,))] + SIGMA * torch.randn(count, 2)

    for step in range(1, options.steps + 1):
        real, fake = sample_real(), G(torch.randn(count, LATENT))
        loss = d_loss(D, real, fake.detach(), variant, alpha=options.alpha, gamma=options.gamma)
        adam_d.zero_grad()
        loss.backward()
        adam_d.step()

        D.requires_grad_(False)
        loss = generator_loss(D(fake), D(sample_real()) if kind == "relativistic" else None, kind=kind)
        adam_g.zero_grad()
        loss.backward()
        adam_g.step()
        D.requires_grad_(True)

        if step % every == 0 or step == options.steps:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                generated = G(torch.randn(POINTS, LATENT, generator=torch.Generator().manual_seed(seed)))
            metrics.append(measure(generated, centres))
            if seed == options.seed:
                points[step] = generated
    last = {name: sum(m[name] for m in metrics[-LAST:]) / len(metrics[-LAST:]) for name in metrics[0]}
    return Result(data, variant, seed, last, points)


def main(argv: Sequence[str]) -> None:
    """The command recipes/toy_gan.py."""
    options, _ = read_options(ToyOptions, argv, prog="mixgan toy-gan")
    variants, sets = _names("variants", options.variants, Variant), _names("data", options.data, Data)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    seeds = range(options.seed, options.seed + options.seeds)
    runs = [(data, variant, seed, options) for data in sets for variant in variants for seed in seeds]
    jobs = min(options.jobs, len(runs), os.cpu_count() or 1)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(train, *run) for run in runs]
        for number, future in enumerate(as_completed(futures), 1):
            done = future.result()
            reached = f"{done.metrics['modes']:.1f} of {len(modes(done.data))} modes"
            print(f"{number}/{len(runs)}  {done.data} {done.variant} seed {done.seed}: {reached}", flush=True)
        results = [future.result() for future in futures]
    for data in sets:
        draw([result for result in results if result.data == data]).savefig(options.output_dir / f"{data}.png", dpi=80)
    table = table_of(results)
    (options.output_dir / "table.md").write_text(table)
    records = [{"data": r.data, "variant": r.variant, "seed": r.seed, **r.metrics} for r in results]
    settings = {name: str(value) for name, value in asdict(options).items()}
    (options.output_dir / "results.json").write_text(json.dumps({"settings": settings, "runs": records}, indent=1))
    print(f"{table}\nPictures and results: {options.output_dir}")


def table_of(results: Sequence[Result]) -> str:
    """Markdown: mean and 95 % interval over the seeds, for every data set and variant."""
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
    from mixgan.report.comparison import spread

    found = spread(values)
    return f"{found.mean:.{digits}f}" + ("" if found.ci95 is None else f" ± {found.ci95:.{digits}f}")


def draw(results: Sequence[Result]) -> "Figure":
    """The first seed's points over time: one row per variant, five columns of steps, real modes in orange."""
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
