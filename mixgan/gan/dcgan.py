"""DCGAN trained on mixed real and generated images: networks, training step, evaluation and command.

The GAN experiment of mixup (Zhang et al. 2018, "Stabilization of generative adversarial networks"): real and generated images
are two classes, mixed like any others, so that the discriminator d minimises l(d(lam x + (1 - lam) g(z)), lam). Networks as in
Radford et al. 2015.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from mixgan.engine.accelerator import on_main, seeded_generator, synchronise_buffers
from mixgan.engine.annotations import Above0, BelowOne, check_arguments
from mixgan.engine.config import run_settings
from mixgan.engine.ema import MovingAverage
from mixgan.engine.fingerprint import describe_tensors
from mixgan.engine.run import Run
from mixgan.engine.run_folder import load_tensors
from mixgan.evaluate.comparison import compare_sets, measure
from mixgan.evaluate.feature_set import FeatureSet
from mixgan.evaluate.features import FeatureExtractor
from mixgan.gan.card import noise_card
from mixgan.gan.config import DcganMixing, DcganSettings
from mixgan.gan.data import DRY_RUN_TESTS, ImageLoader, Split, fetch_images, load_images
from mixgan.gan.evaluation import Generated, PairwiseDistance, Pictures, TrainedRun, collapse_warnings, first_and_others
from mixgan.gan.losses import DTerm, GanKind, check_pairs, discriminator_loss, gan_loss, generator_loss, realness
from mixgan.gan.mixcyclegan import check_precision, update
from mixgan.gan.networks import init_weights
from mixgan.gan.train import Training, arguments_of, features_of
from mixgan.gan.weights import checkpoint_tensors, init_networks, place_of
from mixgan.mixing import Plan, build_mixer
from mixgan.ops.transforms import to_bytes, to_signed
from mixgan.report.plots import image_grid

FAKE, REAL = 0, 1  # the two classes of the discriminator
BASE = 4  # side of the smallest feature maps
#: Images per batch in evaluation, images on a side of the sample grid, and images on the grid of training inputs.
EVAL_BATCH, GRID_SIDE, TRAINING_IMAGES = 100, 8, 6


class Generator(nn.Module):
    """Noise to image: a projection to 4x4 pixels, then transposed convolutions that double the side.

    For ``size=64, width=64, latent=100`` the published network: 512, 256, 128 and 64 channels between noise and image. Batch
    norm and ReLU everywhere but at the output, which is a tanh.

    Args:
        size: side of the images, a power of two, at least 8.
        width: channels before the output, doubled with every halving of the side.
        latent: length of the noise vectors.
    """

    def __init__(self, *, size: int = 64, channels: int = 3, width: int = 64, latent: int = 100) -> None:
        super().__init__()
        self.latent = latent
        widths = layer_widths(size, width)[::-1]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, widths[0], BASE, bias=False)]
        for wide, narrow in itertools.pairwise(widths):
            up = nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1, bias=False)
            layers += [nn.BatchNorm2d(wide), nn.ReLU(inplace=True), up]
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        layers += [nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)
        init_dcgan(self)

    def forward(self, noise: Tensor) -> Tensor:
        """(B,latent) from N(0, 1) -> (B,channels,size,size) in [-1,1]."""
        return self.layers(noise[:, :, None, None])


class Discriminator(nn.Module):
    """Image to one logit, higher for real: strided convolutions, leaky ReLU, no norm in the first layer.

    The norm is a group norm of one group, not DCGAN's batch norm: batches of mixed, real and generated images have different
    statistics, so a discriminator trained on mixed batches would score a batch of generated images differently.
    Args as in ``Generator``; ``width`` channels after the first layer.
    """

    def __init__(self, *, size: int = 64, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        widths = layer_widths(size, width)
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for narrow, wide in itertools.pairwise(widths):
            layers.append(nn.Conv2d(narrow, wide, 4, stride=2, padding=1, bias=False))
            layers += [nn.GroupNorm(1, wide), nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, BASE))
        init_dcgan(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B,channels,size,size) in [-1,1] -> logits (B,1,1,1)."""
        return self.layers(images)


def layer_widths(size: int, width: int) -> list[int]:
    """Channels at sides size/2, size/4 ... 4: ``[64, 128, 256, 512]`` for ``(64, 64)``; sides are powers of two from 8 on."""
    halvings = round(math.log2(size / BASE)) if size >= 2 * BASE else 0
    if size != BASE * 2**halvings or halvings < 1:
        raise ValueError(f"the side of DCGAN's images must be a power of two, at least {2 * BASE}, got {size}")
    return [width * 2**depth for depth in range(halvings)]


@torch.no_grad()
def init_dcgan(module: nn.Module) -> None:
    """Convolutions from N(0, 0.02) with zero biases, norm scales from N(1, 0.02), in place, as published."""
    init_weights(module)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


class DCGAN:
    """Trains a generator and a discriminator on mixes of real and generated images.

    | mixing | the discriminator sees | its loss |
    |---|---|---|
    | none | real; fake | (L(D(real), 1) + L(D(fake), 0)) / 2 |
    | mixup and others | x = mask * real + (1 - mask) * fake | L(D(x), share of real in x) |
    | the same, d_term "add" | x; real; fake | both |

    Args:
        generator: noise (B,latent) to images (B,C,S,S) in [-1,1]; its attribute ``latent`` is the length of the noise vectors.
        discriminator: images to logits (B,1,1,1).
        accelerator: of the training loop; by default a plain one.
        mixing: see the table; any mixer whose label weight is the share of the own image.
        alpha: lambda ~ Beta(alpha, alpha), the share of the real image.
        d_term: whether the mixed term replaces the plain one or is added to it.
        gan_loss: L; "relativistic" without mixing only.
        ema: decay of a moving average of the generator's weights; 0 for none.
        lr: learning rate of both Adam optimizers (betas 0.5 and 0.999).

    Attributes:
        average: moving average of the generator, or None; its state belongs in a checkpoint.

    Raises:
        ValueError: an unknown choice, or fp16 without a GPU.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        accelerator: Accelerator | None = None,
        mixing: DcganMixing = "mixup",
        alpha: Above0 = 1.0,
        d_term: DTerm = "replace",
        gan_loss: GanKind = "bce",
        ema: BelowOne = 0.0,
        lr: Above0 = 2e-4,
    ) -> None:
        check_arguments(DCGAN.__init__, locals())
        check_pairs(gan_loss, mixing)
        self.accelerator = accelerator or Accelerator()
        check_precision(self.accelerator)
        self.generator, self.discriminator, self.gan_loss = generator, discriminator, gan_loss
        self.mixer = None if mixing == "none" else build_mixer(mixing, num_classes=2, alpha=alpha)
        self.adds = self.mixer is not None and d_term == "add"
        self.average = MovingAverage(generator, ema) if ema else None
        if self.average:
            self.average.network.to(self.accelerator.device)
        optimizers = [
            torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999)) for network in (generator, discriminator)
        ]
        prepared = self.accelerator.prepare(generator, discriminator, *optimizers)
        self.prepared_g, self.prepared_d, self.optimizer_g, self.optimizer_d = prepared

    @property
    def eval_generator(self) -> nn.Module:
        """The generator to evaluate: its moving average where there is one."""
        return self.average.network if self.average else self.generator

    def mix(self, real: Tensor, fake: Tensor, *, plan: Plan | None = None) -> tuple[Tensor, Tensor]:
        """The discriminator's input, (B,C,S,S), or (2B,C,S,S) without mixing, and the share of real image in each.

        Images (B,C,S,S) are mixed sample by sample; ``plan`` is used instead of a draw.
        """
        labels = torch.full((len(real),), REAL, device=real.device)
        if self.mixer is None:
            return torch.cat((real, fake)), torch.cat((labels, torch.full_like(labels, FAKE))).float()
        plan = plan or self.mixer.plan(real)
        targets = self.mixer.targets(labels, plan, other_labels=torch.full_like(labels, FAKE))
        return self.mixer.mix_images(real, plan, others=fake), targets[:, REAL]

    def discriminator_loss(self, logits: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of D, and detached scalars for the log.

        Args:
            logits: (N,1,1,1) of what ``mix`` returns and, where the mixed term is added, of real and generated images.
            target: of what ``mix`` returns.
        """
        if self.mixer is None:
            real, fake = logits.chunk(2)
            return discriminator_loss(real, fake, kind=self.gan_loss), {"D_real": self._mean(real)}
        mixed, *plain = logits.chunk(3) if self.adds else (logits,)
        logs = {"D_mixed": self._mean(mixed), "lam": target.mean()}
        loss = gan_loss(mixed, target, kind=self.gan_loss)
        if not plain:
            return loss, logs
        return loss + discriminator_loss(*plain, kind=self.gan_loss), logs | {"D_real": self._mean(plain[0])}

    def _mean(self, logits: Tensor) -> Tensor:
        return realness(logits.detach(), kind=self.gan_loss).mean()

    def step(self, real: Tensor) -> dict[str, Tensor]:
        """Update the discriminator, then the generator, on the same generated images.

        Args:
            real: (B,C,S,S) in [-1,1].

        Returns:
            Detached scalars on the device: losses, mean logits, norms of the gradients.
        """
        noise = torch.randn(len(real), cast(int, self.generator.latent), device=real.device)
        with self.accelerator.accumulate(self.prepared_g, self.prepared_d):
            fake = self.prepared_g(noise)
            images, target = self.mix(real, fake.detach())
            if self.adds:
                images = torch.cat((images, real, fake.detach()))
            self.discriminator.requires_grad_(True)
            d_loss, logs = self.discriminator_loss(self.prepared_d(images), target)
            self.accelerator.backward(d_loss)
            norms = update("grad_D", self.discriminator, self.optimizer_d, self.accelerator)

            self.discriminator.requires_grad_(False)
            # By the plain discriminator: its gradients are not wanted here, so other processes need not hear of them.
            with self.accelerator.autocast():
                logits = self.discriminator(fake)
                real_logits = self.discriminator(real) if self.gan_loss == "relativistic" else None
            g_loss = generator_loss(logits, real_logits, kind=self.gan_loss)
            self.accelerator.backward(g_loss)
            norms |= update("grad_G", self.generator, self.optimizer_g, self.accelerator)
            if self.average and self.accelerator.sync_gradients:
                self.average.update(self.generator)
        losses = {"G": g_loss.detach(), "D": d_loss.detach()}
        return {**losses, **logs, "D_fake": self._mean(logits), **norms}


# Evaluation.


@torch.no_grad()
def generate(generator: nn.Module, noise: Tensor, accelerator: Accelerator) -> Tensor:
    """Images (B,3,S,S) uint8 of noise (B,latent) in eval mode; gray images get three equal channels."""
    training = generator.training
    generator.eval()
    with accelerator.autocast():
        images = to_bytes(generator(noise.to(accelerator.device)))
    generator.train(training)
    return images.expand(-1, 3, -1, -1)


class TestImages:
    """The test images' features, and as many fixed noise vectors; metrics are of the whole set, the same on all processes.

    Args:
        images: (N,C,S,S) uint8, C 1 or 3; at least two, else a ValueError.
        noise: (M,latent), the same on all processes.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(
        self, images: Tensor, noise: Tensor, extractors: Sequence[FeatureExtractor], accelerator: Accelerator
    ) -> None:
        if min(len(images), len(noise)) < 2:
            raise ValueError(f"an evaluation needs two images of each kind, got {len(images)} and {len(noise)}")
        self.noise, self.extractors, self.accelerator = noise, extractors, accelerator
        images = images.expand(-1, 3, -1, -1)
        self.size = images.shape[-1]
        self.real, self.real_spread = self._measure(lambda index: images[index], len(images), "test images")

    def _measure(self, make: Callable[[Tensor], Tensor], count: int, name: str) -> tuple[list[FeatureSet], float]:
        """The features by each extractor and the diversity of ``count`` images that ``make`` makes of positions."""
        source = Pictures(make, count, PairwiseDistance(self.size), name)
        found = measure(source, self.extractors, accelerator=self.accelerator, batch_size=EVAL_BATCH)
        return found, source.spread.value(self.accelerator)

    def metrics(self, model: DCGAN) -> dict[str, Any]:
        """The metrics of summary.json, and which weights they are of."""
        generator = model.eval_generator
        synchronise_buffers(self.accelerator, generator)

        def make(index: Tensor) -> Tensor:
            return generate(generator, self.noise[index], self.accelerator)

        fakes, spread = self._measure(make, len(self.noise), "generated images")
        sets = [*zip(self.real, fakes, self.extractors, strict=True)]
        compared = on_main(self.accelerator, lambda: [compare_sets(*each, bootstrap=None) for each in sets])
        names = ("fd", "kid", "precision", "recall", "density", "coverage", "n_real", "n_fake", "features", "distance")
        spaces: list[dict[str, Any]] = [
            {name: getattr(one, name) for name in names} | ({} if one.fid is None else {"fid": one.fid})
            for one in compared
        ]
        spaces[0] |= {"diversity": spread, "diversity_real": self.real_spread}
        spaces[0] |= {"weights": "ema" if model.average else "plain"}
        warnings = [*dict.fromkeys(text for one in compared for text in one.warnings), *collapse_warnings(spaces[0])]
        return first_and_others(spaces) | ({"warnings": warnings} if warnings else {})


# The command.


def train(settings: DcganSettings) -> dict[str, Any]:
    """One training run; returns its summary. ValueError for wrong settings, missing data, a folder that cannot be used."""
    run = Run.start(settings, recipe="dcgan")
    accelerator = run.accelerator
    if settings.download:
        on_main(accelerator, lambda: fetch_images(settings.dataset, settings.data_root))
    loader = ImageLoader(
        images_of(settings, "train", world=accelerator.num_processes),
        batch_size=settings.batch_size,
        seed=settings.seed,
        device=accelerator.device,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
    )
    channels = loader.images.shape[1]
    shape: Any = {"size": settings.image_size, "channels": channels, "width": settings.width}
    generator, discriminator = Generator(latent=settings.latent, **shape), Discriminator(**shape)
    if settings.init_from and not run.resumes:
        init_networks({"G": generator, "D": discriminator}, settings.init_from)
    model = DCGAN(generator, discriminator, accelerator=accelerator, **arguments_of(DCGAN, settings))
    if model.average:
        run.register_for_checkpointing("average", model.average)
    extractors = features_of(run, settings)
    tests = images_of(settings, "test")
    noise = noise_of(settings, len(tests))
    test = TestImages(tests, noise, extractors, accelerator)

    def networks() -> dict[str, tuple[nn.Module, dict[str, Any]]]:
        of_generator = {"role": "noise generator", **shape, "latent": settings.latent}
        found: dict[str, tuple[nn.Module, dict[str, Any]]] = {
            "G": (generator, {"name": "G", **of_generator}),
            "D": (discriminator, {"role": "discriminator", "name": "D", **shape}),
        }
        if model.average:
            found["G_ema"] = model.average.network, {"name": "G_ema", **of_generator, "ema": settings.ema}
        return found

    def samples(title: str) -> Image.Image:
        images = generate(model.eval_generator, noise[: GRID_SIDE**2], accelerator).cpu()
        return image_grid(list(images.split(GRID_SIDE)), title=title, cell_size=64)

    return Training(
        run=run,
        settings=settings,
        loader=loader,
        data=lambda: {"train": describe_tensors(loader.images), "test": describe_tensors(tests)},
        step=model.step,
        measure=lambda: test.metrics(model),
        distances=("fd",),
        on_progress_bar=("G", "D"),
        printed={name: name for name in ("fd", "precision", "recall")},
        networks=networks,
        card=noise_card,
        samples=samples,
        inputs=lambda: training_grid(model, next(loader.epoch(0)), noise),
    ).train()


def images_of(settings: DcganSettings, split: Split, *, world: int = 1) -> Tensor:
    """Training or test images; a dry run takes only those of one step of ``world`` processes, and a few to test on."""
    count = settings.train_count if split == "train" else settings.eval_count
    if settings.dry_run:
        step = settings.batch_size * settings.accumulation_steps * world
        count = min(step, count or step) if split == "train" else DRY_RUN_TESTS
    where: Any = settings.dataset, settings.data_root
    return load_images(*where, split=split, size=settings.image_size, count=count, on_bad_image=settings.on_bad_image)


def noise_of(settings: DcganSettings, count: int) -> Tensor:
    """The noise (count,latent) of a run's evaluations."""
    return torch.randn(count, settings.latent, generator=seeded_generator(settings.seed, "evaluation"))


class TrainedDcgan(TrainedRun):
    """A run of DCGAN as the evaluation command takes it: images from the noise of its own evaluations, ``count`` or as many."""

    def __init__(self, folder: Path, count: int | None = None) -> None:
        self.folder, self.count = folder, count
        self.settings: Any = DcganSettings(**run_settings(folder, DcganSettings))

    def images(self, weights: str) -> tuple[Generated, str]:
        """What these weights make, and a description of it."""
        settings, place = self.settings, place_of(self.folder, "G", weights, ema=True)
        if place is None:
            raise ValueError(
                f"{self.folder} has no weights yet: they are written at evaluations and when the run stops"
            )
        state = checkpoint_tensors(place, ema=True) if place.is_dir() else load_tensors(place)
        last = max((key for key in state if key.endswith(".bias")), key=lambda key: int(key.split(".")[1]))
        shape: Any = {"size": settings.image_size, "width": settings.width, "latent": settings.latent}

        def build() -> nn.Module:
            with torch.random.fork_rng(devices=[]):  # initial weights, soon replaced
                generator = Generator(channels=len(state[last]), **shape)
            generator.load_state_dict(state)
            return generator.eval()

        count = self.count or len(images_of(settings, "test"))
        origin = (
            f"{count} images from the noise of seed {settings.seed} by {place.parent if place.is_file() else place}"
        )
        return Generated(build, noise_of(settings, count)), origin

    def training_images(self) -> Tensor:
        """(N,3,S,S) uint8."""
        return images_of(self.settings, "train").expand(-1, 3, -1, -1)


def training_grid(model: DCGAN, real: Tensor, noise: Tensor) -> Image.Image:
    """Real and generated images and, where they are mixed, the discriminator's input, at lambda 0.2 to 0.8."""
    real = real[:TRAINING_IMAGES]
    fake = generate(model.generator, noise[: len(real)], model.accelerator)[:, : real.shape[1]].to(real.device)
    rows, labels, columns = [to_bytes(real), fake], ["real", "generated"], []
    if model.mixer is not None:
        plan = model.mixer.plan(real, lam=torch.linspace(0.2, 0.8, len(real), device=real.device))
        images, target = model.mix(real, to_signed(fake), plan=plan)
        rows.append(to_bytes(images))
        labels.append("discriminator input")
        columns = [f"target {share:.2f}" for share in target.tolist()]
    rows = [row.cpu() for row in rows]
    return image_grid(rows, row_labels=labels, column_labels=columns, title="Inputs of one training step")
