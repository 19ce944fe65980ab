"""How good the translations of a test set are: distances, paired metrics and diversity; warnings about failing training."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mixgan.data.domains import Domains
from mixgan.engine.accelerator import on_main, one_device
from mixgan.engine.checkpoint import BEFORE_SPIKE
from mixgan.engine.config import run_settings
from mixgan.engine.run import Run
from mixgan.evaluate.comparison import KID, enough, measure
from mixgan.evaluate.distances import frechet_distance_from_features, kernel_distance
from mixgan.evaluate.features import FeatureExtractor, check_names, find_extractors, is_published_fid
from mixgan.evaluate.paired import PairedMeans
from mixgan.evaluate.sources import Batch, BatchSource
from mixgan.gan.config import GanSettings
from mixgan.gan.data import test_domains, training_domains
from mixgan.gan.weights import Direction, find_generator
from mixgan.ops.transforms import luminance, to_bytes, to_signed

PAIRED = ("rmse", "rmse_gcgan", "acc5", "acc10", "ssim")
#: Deviation of the luminance, of 255, below which an image counts as flat.
FLAT = 0.25
#: Pixels of a batch that is translated, where --batch-size has fewer: one image of 256 px, 16 of 64 px.
BATCH_PIXELS = 256 * 256
#: Generated images count as collapsed below this share of the real ones' pairwise distance.
COLLAPSED = 0.1
#: A discriminator is saturated when its loss stays below LOW_LOSS for LONG steps.
LOW_LOSS, LONG = 0.01, 200


def test_features(dataset: str, features: str, weights: Path | None) -> list[FeatureExtractor]:
    """The features that a run's metrics use: by default on tiles the bundled ones, whose network was trained on them."""
    tiles = dataset == "tiles"
    names = ["bundled" if tiles and name == "auto" else name for name in check_names(features)]
    found = find_extractors(names, weights)
    for extractor in found:
        if tiles and extractor.name == "bundled":
            extractor.note = "features: bundled, whose network was trained on tiles"
    return found


@dataclass(frozen=True)
class Reference:
    """Real images of one domain, their features (N,D) by each extractor, and their diversity, computed once per run."""

    images: Tensor
    features: list[Tensor]
    diversity: float


@dataclass
class Pictures:
    """A source of ``mixgan.evaluate``: images (b,3,H,W) uint8 that ``make`` makes of positions (b,), never all in memory.

    Updates ``spread`` on the way.
    """

    make: Callable[[Tensor], Tensor]
    count: int
    spread: "PairwiseDistance"
    name: str
    skipped: tuple[Path, ...] = ()

    def batches(self, batch_size: int, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The images at the positions rank, rank + world, ..."""
        for indices in torch.arange(self.count)[rank::world].split(batch_size):
            if len(indices):
                images = self.make(indices)
                self.spread.update(images)
                yield Batch(images, indices)


class TestSet:
    """The test images of both domains on the device, at least one each, with the features of the real ones.

    Each process translates its own share; the metrics are of the whole set and the same on all processes.
    """

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(
        self, domains: Domains, extractors: Sequence[FeatureExtractor], accelerator: Accelerator, *, batch_size: int
    ) -> None:
        a, b = domains.a, domains.b
        if not (isinstance(a, Tensor) and isinstance(b, Tensor) and len(a) and len(b)):
            raise ValueError(f"a test set needs images of one size, at least one a domain, got {len(a)} and {len(b)}")
        self.accelerator = accelerator
        self.batch_size = max(batch_size, BATCH_PIXELS // (a.shape[-2] * a.shape[-1]))  # small images wait for calls
        self.paired = domains.paired
        self.extractors = [extractor.to(accelerator.device) for extractor in extractors]
        self.warnings = [text for extractor in extractors for text in extractor.warnings]
        self.has_kernel_distance = enough(KID, min(len(a), len(b)), self.warnings)
        if min(len(a), len(b)) == 1:
            self.warnings.append("a domain has a single test image: its Frechet distances are to or from one point")
        self.a, self.b = self._reference(a), self._reference(b)

    def metrics(self, generators: Any) -> dict[str, Any]:
        """The metrics of summary.json: AtoB is the quality of generated images of B, BtoA of generated images of A.

        Distances are of the first features; those of further ones, from the same translations, are in ``others`` by name.
        ``diversity_AtoB`` is the pairwise distance of generated images of B and ``diversity_real_AtoB`` that of real ones;
        ``luminance_correlation_AtoB`` compares images of A with their translations.

        Args:
            generators: with the generators as ``G_A`` and ``G_B``.
        """
        ways = {
            "AtoB": self._direction(generators.G_A, self.a, self.b),
            "BtoA": self._direction(generators.G_B, self.b, self.a),
        }
        counts = {"n_real": len(self.b.images), "n_fake": len(self.a.images)}
        spaces: list[dict[str, Any]] = []
        for i, extractor in enumerate(self.extractors):
            sides = {way: distances[i] | ({} if i else images) for way, (distances, images) in ways.items()}
            both = {f"{name}_{way}": side[name] for name in sides["AtoB"] for way, side in sides.items()}
            spaces.append({"features": extractor.name, "distance": extractor.distance, **counts, **both})
        return first_and_others(spaces) | ({"warnings": [*self.warnings]} if self.warnings else {})

    @torch.no_grad()
    def _direction(
        self, generator: Callable[[Tensor], Tensor], source: Reference, target: Reference
    ) -> tuple[list[dict[str, float | None]], dict[str, float | None]]:
        """The distances in each feature space, and what is measured on the images themselves."""
        paired, correlations = PairedMeans(), torch.zeros((), dtype=torch.float64)

        def translate(index: Tensor) -> Tensor:
            images = source.images[index]
            with self.accelerator.autocast():
                fake = rgb_bytes(generator(to_signed(images)))
            correlations.add_(luminance_correlation(rgb_bytes(images), fake).sum().cpu())
            if self.paired:
                paired.update(fake, rgb_bytes(target.images[index]))
            return fake

        fakes, diversity = self._measure(translate, source.images, "generated images")
        distances: list[dict[str, float | None]] = []
        for extractor, real, found in zip(self.extractors, target.features, fakes, strict=True):
            value = frechet_distance_from_features(real, found)
            kernel = kernel_distance(real, found).mean if self.has_kernel_distance else None
            distances.append({"fd": value, **({"fid": value} if is_published_fid(extractor) else {}), "kid": kernel})
        means = paired.reduce(self.accelerator).means() if self.paired else {}
        return distances, {
            **{name: means[name] for name in PAIRED if name in means},
            "diversity": diversity,
            "diversity_real": target.diversity,
            "luminance_correlation": (sum_over_processes(correlations, self.accelerator) / len(source.images)).item(),
        }

    def _reference(self, images: Tensor) -> Reference:
        images = images.to(self.accelerator.device)
        return Reference(images, *self._measure(lambda index: rgb_bytes(images[index]), images, "test images"))

    def _measure(self, make: Callable[[Tensor], Tensor], images: Tensor, name: str) -> tuple[list[Tensor], float]:
        """The features (N,D) by each extractor and the diversity of what ``make`` makes of the positions of ``images``."""
        count, spread = len(images), PairwiseDistance(images.shape[-2:])
        source = Pictures(make, count, spread, name)
        how: dict[str, Any] = {"accelerator": self.accelerator, "batch_size": self.batch_size, "sample": count}
        features = [one.features for one in measure(source, self.extractors, **how) if one.features is not None]
        if count == 1:  # the covariance of one point is 0
            features = [one.repeat(2, 1) for one in features]
        return features, spread.value(self.accelerator)


def rgb_bytes(images: Tensor) -> Tensor:
    """(B,1 or 3,H,W), uint8 or float in [-1,1] -> (B,3,H,W) uint8, what metrics and pictures show."""
    images = images if images.dtype == torch.uint8 else to_bytes(images)
    return images.repeat(1, 3, 1, 1) if images.shape[1] == 1 else images


def first_and_others(spaces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Metrics in several feature spaces as summary.json has them: those of the first, and ``others`` by name."""
    others = {space["features"]: space for space in spaces[1:]}
    return spaces[0] | ({"others": others} if others else {})


class TrainedRun:
    """A run of MixCycleGAN as the evaluation command takes it: what its generator makes of its own test set.

    ``direction`` is AtoB for generated images of B. ValueError for a run of another command.
    """

    def __init__(self, folder: Path, direction: Direction) -> None:
        find_generator(folder, direction=direction)  # a run of another command is an error here
        self.folder, self.direction = folder, direction
        self.settings = GanSettings(**run_settings(folder, GanSettings))

    def generated(self, weights: str) -> dict[str, tuple[BatchSource, int | None]]:
        """Generated images, made batch by batch, and their training step, by name.

        Args:
            weights: last, best, step-N, or all checkpoints; several with commas.
        """
        checkpoints = self.folder / "checkpoints"
        steps = [f"step-{int(path.name.removeprefix('step-'))}" for path in sorted(checkpoints.glob("step-*"))]
        found = {}
        choices = [each for one in weights.split(",") for each in (steps if one == "all" else [one.strip()])]
        for choice in dict.fromkeys(choices):
            made, origin = self.images(choice)
            pointer = checkpoints / f"{choice}.json"
            step = json.loads(pointer.read_text()).get("step") if pointer.is_file() else None
            source = BatchSource(made, f"{self.folder} {choice}", count=len(made.inputs), origin=origin)
            found[source.name] = source, int(choice[5:]) if choice.startswith("step-") else step
        return found

    def images(self, weights: str) -> "tuple[Generated, str]":
        """What these weights make, and a description of it."""
        domains = test_domains(self.settings)
        images = domains.a if self.direction == "AtoB" else domains.b
        assert isinstance(images, Tensor)  # test images are of one size
        saved = find_generator(self.folder, direction=self.direction, weights=weights)
        return Generated(saved.build, images), f"translations {self.direction} of the test set by {saved.path}"

    def training_images(self) -> Tensor:
        """(N,3,H,W) uint8, of the domain that is generated, as large as the generated images where --preprocess scales."""
        domains = training_domains(replace(self.settings, load_size=self.settings.image_size))
        images = domains.b if self.direction == "AtoB" else domains.a
        if not isinstance(images, Tensor):
            raise ValueError(
                f"--train {self.folder}: its training images are of several sizes; name a folder of images"
            )
        return rgb_bytes(images)


@dataclass(frozen=True)
class Generated:
    """Batches of images (N,3,S,S) uint8 that a generator makes of its inputs, on the GPU if there is one.

    Attributes:
        build: -> the generator, in eval mode.
        inputs: images (N,C,S,S), uint8 or in [-1,1], or noise (N,latent).
    """

    build: Callable[[], nn.Module]
    inputs: Tensor

    @torch.no_grad()
    def __iter__(self) -> Iterator[Tensor]:
        device = one_device()
        generator = self.build().to(device)
        for inputs in self.inputs.split(16):
            yield rgb_bytes(generator(to_signed(inputs.to(device)))).cpu()


class PairwiseDistance:
    """Root of the mean squared distance over all pairs of images (of one ``size``), as an RMSE of 0..255: their diversity.

    From running sums, as sum over pairs of |x_i - x_j|^2 = n sum |x|^2 - |sum x|^2, so that no image is kept.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.count = 0
        self.squares = torch.zeros((), dtype=torch.float64)
        self.sum = torch.zeros(3, *((size, size) if isinstance(size, int) else size), dtype=torch.float64)

    def update(self, images: Tensor) -> None:
        """Add images (B,3,size,size) uint8."""
        values = images.cpu().double()
        self.count += len(values)
        self.squares += values.square().sum()
        self.sum += values.sum(0)

    def value(self, accelerator: Accelerator) -> float:
        """Over the images of all processes; call it on all of them. 0 for fewer than two images."""
        own = torch.tensor([self.count, self.squares], dtype=torch.float64)
        sums = sum_over_processes(torch.cat((own, self.sum.flatten())), accelerator)
        count, squares, total = sums[0], sums[1], sums[2:]
        pairs = count * (count - 1) / 2
        mean_square = (count * squares - total.square().sum()) / (pairs * len(total)).clamp_min(1)
        return mean_square.clamp_min(0).sqrt().item()


def sum_over_processes(own: Tensor, accelerator: Accelerator) -> Tensor:
    """The sum of a CPU tensor over all processes."""
    if accelerator.num_processes == 1:
        return own
    return accelerator.reduce(own.to(accelerator.device), reduction="sum").cpu()


def luminance_correlation(images: Tensor, others: Tensor) -> Tensor:
    """Pearson's correlation (B,) of the luminance of images (B,3,H,W) uint8: negative where dark has become light.

    Over the pixels; 0 where one of the two images is flat.
    """
    first, second = (luminance(batch.float()).flatten(1) for batch in (images, others))
    first, second = first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True)
    deviations = first.square().mean(1).sqrt(), second.square().mean(1).sqrt()
    flat = torch.minimum(*deviations) < FLAT
    return torch.where(flat, 0.0, (first * second).mean(1) / (deviations[0] * deviations[1]).clamp_min(FLAT**2))


def collapse_warnings(metrics: Mapping[str, Any]) -> list[str]:
    """A sentence for each generator whose images are nearly all the same, by the pairwise distances of its and real images."""
    generators = {"_AtoB": "G_A", "_BtoA": "G_B", "": "the generator"}
    found = {
        name: (metrics[f"diversity{end}"], metrics[f"diversity_real{end}"])
        for end, name in generators.items()
        if f"diversity{end}" in metrics
    }
    return [
        f"{name} has collapsed: its images differ by {diversity:.1f} of 255 on average, real ones by {real:.1f}; "
        "a lower --lr or another --seed may help"
        for name, (diversity, real) in found.items()
        if diversity < COLLAPSED * real
    ]


class Health:
    """Warns once about mode collapse and discriminator saturation, by ``warn``, which takes a line for the user."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._low_since: dict[str, int] = {}
        self._warned: set[str] = set()

    def after_evaluation(self, metrics: Mapping[str, Any]) -> None:
        """Check for collapse."""
        for text in collapse_warnings(metrics):
            self._warn_once(text.partition(":")[0], text)

    def after_log(self, step: int, losses: Mapping[str, Any]) -> None:
        """Check for saturation. Reads D_A and D_B from the device, so call it where the log has just done so anyway."""
        for name, loss in zip(("D_A", "D_B"), torch.stack([losses["D_A"], losses["D_B"]]).tolist(), strict=True):
            if loss >= LOW_LOSS:
                self._low_since.pop(name, None)
            elif step - self._low_since.setdefault(name, step) >= LONG:
                self._warn_once(
                    name,
                    f"{name} is saturated: its loss has stayed below {LOW_LOSS} since step {self._low_since[name]}, so its "
                    "generator learns little from it; a lower --lr may help",
                )

    def _warn_once(self, trouble: str, text: str) -> None:
        if trouble not in self._warned:
            self._warned.add(trouble)
            self._warn(f"warning: {text}")


class Spikes:
    """Reports a run's first loss spike and keeps the checkpoint before it, pointed to by checkpoints/before-spike.json.

    A step is a spike where the sum of the magnitudes of the losses ``names`` is above ``factor`` (0: no reports) times the
    median of the ``WINDOW`` steps before.
    """

    WINDOW = 100

    def __init__(self, run: Run, names: Sequence[str], factor: float) -> None:
        self.run, self.names, self.factor = run, names, factor
        self._steps = 0
        # On the device, made at the first step: the last losses, and step, loss and median of the first spike (0 before it).
        self._recent: Tensor | None = None
        self._found: Tensor | None = None

    def after_step(self, losses: Mapping[str, Tensor | float]) -> None:
        """Compare on the device, without waiting for it; every process calls this with its own losses."""
        if not self.factor:
            return
        loss = torch.stack([torch.as_tensor(losses[name]).detach().float() for name in self.names]).abs().sum()
        if self._recent is None or self._found is None:
            self._recent, self._found = loss.new_zeros(self.WINDOW), loss.new_zeros(3)
        if self._steps >= self.WINDOW:
            median = self._recent.median()
            now = torch.stack([torch.full_like(loss, self.run.step), loss, median])
            self._found = torch.where((loss > self.factor * median) & (self._found[0] == 0), now, self._found)
        self._recent[self._steps % self.WINDOW] = loss
        self._steps += 1

    def report(self) -> None:
        """Print what was found. It reads from the device: call it on every process where the log has done so anyway."""
        if self._found is None:
            return
        rows = self.run.accelerator.gather(self._found[None]).tolist()
        step, loss, median = min((row for row in rows if row[0]), default=(0, 0, 0))
        if not step:
            return
        checkpoints, self.factor, self._found = self.run.checkpoints, 0.0, None
        if (checkpoints.folder / BEFORE_SPIKE).is_file():  # reported before the run was resumed
            return
        kept = on_main(self.run.accelerator, lambda: checkpoints.keep_before(int(step)))
        self.run.print(
            f"warning: the losses jumped to {loss:.3g} at step {step:.0f}, {loss / median:.0f} times their median; "
            + (f"{kept} is kept" if kept else "no checkpoint was saved before")
        )
