"""The settings of the GAN commands: what MixCycleGAN and DCGAN share, MixCycleGAN's own, and where defaults come from."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from mixgan.data.domains import Preprocess
from mixgan.engine.annotations import Above0, AtLeast0, AtLeast1, BelowOne, Probability, Range, Weight
from mixgan.engine.command import print_once
from mixgan.engine.config import CommandLine, CommonSettings
from mixgan.gan.losses import DReal, DTerm, GanKind, Mixing, check_pairs, form
from mixgan.gan.networks import Norm, Patch, Upsample

AtLeast2 = Annotated[int, Range(least=2)]  # test images: fewer have no covariance


@dataclass(kw_only=True)
class EvaluatedGanSettings(CommonSettings):
    """What is evaluated when, and the optimizers' settings; a command's own settings say which data sets there are."""

    title: ClassVar[str] = "evaluation and optimizers"
    renamed: ClassVar[Mapping[str, str]] = {
        "--features embedded": "--features bundled",
        "--inception-weights": "--feature-weights",
    }

    dataset: str = "auto"
    """Data set."""
    eval_every: AtLeast1 | None = None
    """Optimizer steps between evaluations (default: only at the end)."""
    eval_at_start: bool = False
    """Evaluate the untrained networks too, for comparison."""
    features: str = "auto"
    """Features of the Frechet and kernel distance: auto, inception, bundled, dinov2, dinov2-b, clip or timm:NAME, several with
    commas; auto takes inception if its weights are here, tiles take bundled."""
    feature_weights: Path | None = None
    """File of the feature network's weights, if not in a cache; for several networks, the folder of their published files."""
    lr: Above0 = 2e-4
    """Learning rate of Adam (betas 0.5 and 0.999)."""
    init_from: str | None = None
    """Begin with trained weights: a run folder, a folder of weights, a file (also latest_net_G*.pth of
    pytorch-CycleGAN-and-pix2pix), or hf://user/repo; networks that it lacks begin as usual."""
    ema: BelowOne = 0.0
    """Decay of a moving average of the generators' weights, which is then evaluated, shown and saved too; 0.999, or 0: none."""
    spike_factor: Weight = 10.0
    """Report the first step whose losses exceed this many times the median of the 100 before, and keep the checkpoint before it;
    0: do not."""

    def check(self) -> None:
        """ValueError for a field that does not fit its annotation, or fields that do not fit one another."""
        super().check()
        if self.mixed_precision == "fp16" and self.accumulation_steps > 1:
            raise ValueError(
                f"--mixed-precision fp16 does not go with --accumulation-steps {self.accumulation_steps}: the gradient scale "
                "that both optimizers share would change between the batches of a step; use bf16"
            )
        from mixgan.evaluate.features import check_names

        names = check_names(self.features)
        if "inception" in names and self.dataset == "tiles":
            raise ValueError(
                "--features inception is made for photographs; the synthetic tiles take --features bundled or auto"
            )


S = TypeVar("S", bound=EvaluatedGanSettings)


def resolve(
    line: CommandLine[S],
    *,
    real: tuple[str, str],
    is_there: Callable[[Path], bool],
    presets: Mapping[str, Mapping[str, Any]],
    **known: str,
) -> S:
    """The settings of a command line: the data set that ``auto`` stands for, then the preset, quick on tiles, paper on others.

    Args:
        real: the real data set, by its name as a value of --dataset and as people call it.
        is_there: whether it is in a data root.
        presets: values by name.
        known: settings that follow from others: the data set, what its domains are called.

    Raises:
        ValueError: unknown preset, a value that does not fit, a resumed run's setting changed.
    """
    (name, title), root = real, line.get("data_root")
    dataset = asked = known.get("dataset") or line.get("dataset")
    if dataset == "auto":
        dataset = name if is_there(root) else "tiles"
    preset = line.get("preset") or ("quick" if dataset == "tiles" else "paper")
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r}; known: {', '.join(presets)}")
    resolved: dict[str, Any] = known
    settings = line.settings({} if line.resumed else presets[preset], **{**resolved, "dataset": dataset})
    if asked == "auto":
        missing = f"No {title} under {root}: using the synthetic tiles (--dataset {name} --download fetches {title})."
        print_once(f"Using {title} from {root}." if dataset == name else missing)
    return settings


Dataset = Literal["auto", "maps", "tiles", "folders"]
Channels = Literal[1, 3]


@dataclass(kw_only=True)
class DomainSettings(EvaluatedGanSettings):
    """Where the images of two domains are, what they are called, and how they are read and cut."""

    title: ClassVar[str] = "the two domains"

    dataset: Dataset = "auto"
    """Data set; auto takes Google Maps where it is in --data-root, else the synthetic tiles. folders: your own images, in
    --data-root as CycleGAN (trainA, trainB, testA, testB) or pix2pix (train, test: pairs side by side) have them, or in
    --domain-a and --domain-b."""
    domain_a: Path | None = None
    """Folder with images of domain A, of any number and size; implies --dataset folders."""
    domain_b: Path | None = None
    """Folder with images of domain B."""
    names: str | None = None
    """What the domains are called, as in horse,zebra (default: the names of their folders)."""
    test_share: BelowOne = 0.1
    """Share of the images that is kept for the test set where folders have none; 0: test on the training images."""
    pairs: bool = False
    """Files of the same name in both domains show the same: metrics that compare pairs are computed too."""
    channels_a: Channels = 3
    """Channels of domain A: 1 (grayscale) or 3 (RGB)."""
    channels_b: Channels = 3
    """Channels of domain B."""
    drop_alpha: bool = False
    """Read the colours of images with an alpha channel, which are refused otherwise (Google Maps never are)."""
    range_a: tuple[float, float] | None = None
    """Values that become black and white in .npy files and images above 8 bits of domain A (default: 0 65535 of 16 bits)."""
    range_b: tuple[float, float] | None = None
    """The same for domain B."""
    preprocess: Preprocess = "resize-crop"
    """resize-crop: squares of --load-size, whatever the aspect; scale-crop: the shorter side to --load-size; crop: the images
    as they are; then a random square of --image-size is cut out. none: whole images, all of one size."""
    load_size: AtLeast1 | None = None
    """Size before cutting, in px (default: 286/256 of --image-size)."""
    flip: bool = True
    """Mirror half of the training images."""
    cache_gb: Weight | None = None
    """Training images that need more memory than this, in GB (10^9 bytes) per process, are read from disk when a batch needs
    them, by --num-workers processes; the batches are the same (default: a quarter of the free memory)."""

    def check(self) -> None:
        """ValueError for a field that does not fit its annotation, or fields that do not fit one another."""
        super().check()
        if (self.domain_a is None) != (self.domain_b is None):
            raise ValueError("--domain-a and --domain-b go together: each names the folder of one domain")
        if self.domain_a is not None and self.dataset != "folders":
            raise ValueError(f"--domain-a and --domain-b are for --dataset folders, got --dataset {self.dataset}")
        given = self.names.split(",") if self.names is not None else ["A", "B"]
        if len(given) != 2 or not all(map(str.strip, given)) or given[0].strip() == given[1].strip():
            raise ValueError(f"--names takes two different names, as in horse,zebra; got {self.names!r}")
        for flag, limits in (("--range-a", self.range_a), ("--range-b", self.range_b)):
            if limits and not limits[0] < limits[1]:
                raise ValueError(f"{flag} takes the lower value first, got {limits[0]:g} {limits[1]:g}")
        if self.dataset == "tiles" and (self.channels_a, self.channels_b) != (3, 3):
            raise ValueError(
                "the synthetic tiles are RGB: --channels-a and --channels-b are for --dataset folders or maps"
            )
        if self.load_size is not None and self.preprocess not in ("resize-crop", "scale-crop"):
            raise ValueError(f"--load-size {self.load_size} does not go with --preprocess {self.preprocess}")

    @property
    def domain_names(self) -> tuple[str, str]:
        """What the domains are called."""
        return domain_names(dataclasses.asdict(self))


def domain_names(settings: Mapping[str, Any]) -> tuple[str, str]:
    """What the domains of a run are called: as --names has it, or by their folders; photo and map for Google Maps and tiles.

    ``settings`` are a run's, as in its config.json; those of older runs have no names.
    """
    if settings.get("names"):
        a, b = (name.strip() for name in str(settings["names"]).split(","))
        return a, b
    if settings["dataset"] != "folders":
        return "photo", "map"
    if settings.get("domain_a"):
        a, b = (Path(str(settings[f"domain_{side}"])).absolute().name for side in "ab")
    else:  # CycleGAN's data sets are called horse2zebra
        a, _, b = Path(str(settings["data_root"])).absolute().name.partition("2")
    return (a, b) if a and b and a != b else ("A", "B")


def domain_metadata(settings: Mapping[str, Any], direction: str) -> dict[str, Any]:
    """What a generator's file says about the domains: names of A and B, declared ranges of those that it reads and writes."""
    sides = "ab" if direction == "AtoB" else "ba"
    ranges = {key: settings.get(f"range_{side}") for key, side in zip(("range_in", "range_out"), sides, strict=True)}
    return {"names": [*domain_names(settings)], **{key: list(value) for key, value in ranges.items() if value}}


def directions(names: tuple[str, str]) -> dict[str, str]:
    """Both ways between the domains, in words: ``{"AtoB": "horse to zebra", "BtoA": "zebra to horse"}``."""
    a, b = names
    return {"AtoB": f"{a} to {b}", "BtoA": f"{b} to {a}"}


#: About three minutes on two CPU cores, on the synthetic tiles.
QUICK = {
    "mixing": "mixcyclegan-plus", "image_size": 64, "width": 16, "blocks": 3, "upsample": "resize", "skip": True, "patch": 34,
    "lr": 6e-4, "ema": 0.99, "train_count": 300, "eval_count": 128, "epochs": 4, "batch_size": 1, "eval_at_start": True,
}  # fmt: skip
#: CycleGAN's settings.
PAPER = {"image_size": 256, "width": 64, "blocks": 9, "batch_size": 1}


@dataclass(kw_only=True)
class GanSettings(DomainSettings):
    """Train MixCycleGAN, or plain CycleGAN, on images of two domains, A and B: your own, Google Maps, or synthetic tiles."""

    title: ClassVar[str] = "MixCycleGAN"
    renamed: ClassVar[Mapping[str, str]] = {"--h-odds": "--h-prob", "--consistency-weight": "--d-weight"}

    mixing: Mixing = "mixcyclegan"
    """What is mixed: generator inputs stitched and discriminator inputs interpolated (mixcyclegan), neither (none: CycleGAN),
    one of them, both stitched (stitch-d), both, with D(mix) held to the mix of D(real) and D(fake) (consistency), or half of
    the inputs stitched and the discriminators' mixed term added to CycleGAN's own (mixcyclegan-plus)."""
    image_size: Annotated[int, Range(least=32)] = 256
    """Side of the training images in px, cut at random from images 286/256 as large (see --preprocess)."""
    train_count: AtLeast1 | None = None
    """How many training images of each domain to use, the first ones by name (default: all; 300 tiles)."""
    eval_count: AtLeast2 | None = None
    """How many test images of each domain to evaluate on, the first ones by name (default: all; 128 tiles)."""
    epochs: AtLeast1 = 150
    """Length of the run: constant learning rate in the first half, falling to 0 in the second."""
    constant_share: Probability = 0.5
    """Share of the epochs with a constant learning rate."""
    alpha: Above0 = 1.0
    """lambda ~ Beta(alpha, alpha)."""
    d_alpha: Above0 | None = None
    """alpha of the discriminators' own lambdas under --no-shared-lambda (default: --alpha)."""
    shared_lambda: bool = True
    """One lambda per sample for both stitches and both discriminators (Eq. 3); else each draws its own."""
    h_prob: Probability = 0.5
    """Probability of stitching side by side rather than one above the other."""
    unstitched: Probability | None = None
    """Share of samples that the generators see un-stitched, the paper's remedy for oceans in large green areas (default: 0;
    mixcyclegan-plus 0.5)."""
    d_term: DTerm | None = None
    """Whether the mixed term replaces the discriminators' real and fake terms or is added to them (default: replace;
    mixcyclegan-plus and consistency always add)."""
    d_weight: Above0 = 1.0
    """Weight of the discriminators' mixed term."""
    d_layer: Literal[0, 1, 2, 3] = 0
    """Where the discriminators mix real and generated images: in their input (0), or behind their first to third convolution."""
    d_real: DReal = "target"
    """The image that a generated one is mixed with for the discriminators: a real one of its own domain (target), or the input it
    was made from (input: Eq. 3 as printed, for --mixing mixcyclegan and dmix-only, without --d-layer)."""
    pool_size: AtLeast0 = 50
    """Generated images that each discriminator remembers."""
    gan_loss: GanKind = "lsgan"
    """Adversarial loss; hinge takes a soft target as the probability of a hard one, and does not go with --mixing consistency;
    relativistic (R3GAN's) compares real and generated images, and goes with --mixing none and stitch-only."""
    r1: Weight = 0.0
    """Weight (gamma) of the gradient penalty on real images, of both discriminators (R3GAN: with relativistic, r1 and r2)."""
    r2: Weight = 0.0
    """Weight (gamma) of the gradient penalty on generated images."""
    r_every: AtLeast1 = 1
    """Optimizer steps between gradient penalties, which weigh as many times more."""
    cycle_weight: Weight = 10.0
    """Weight of both cycle losses."""
    identity_weight: Weight = 0.5
    """Weight of the identity losses, relative to the cycle losses."""
    width: AtLeast1 = 64
    """Channels of the first layer of all networks (ngf and ndf)."""
    blocks: AtLeast0 = 9
    """Residual blocks of the generators."""
    upsample: Upsample = "transposed"
    """How the generators enlarge: transposed convolutions, as published, or resize and convolve, without a checkerboard."""
    skip: bool = False
    """Add the generators' features at half resolution to those of their decoders: sharp outlines after few steps."""
    patch: Patch = 70
    """Side in px of the patches that the discriminators score."""
    generator: Literal["resnet", "unet"] = "resnet"
    """Kind of both generators: CycleGAN's ResNet, or pix2pix's U-Net, as deep as --image-size lets it halve, at most 8 times."""
    norm: Norm = "instance"
    """Norm in all networks: of each image, of the batch, or none."""
    clip_grad: Above0 | None = None
    """Largest norm of the gradients of both generators, and of both discriminators (default: not clipped)."""
    compile: bool = False
    """Compile all four networks with torch.compile: a slow first step, faster ones after it."""
    gradient_checkpointing: bool = False
    """Recompute the residual blocks in the backward pass: less memory, slower, the same results."""

    def check(self) -> None:
        """ValueError for a field that does not fit its annotation, or fields that do not fit one another."""
        super().check()
        if self.image_size % 4:
            raise ValueError(f"--image-size must be a multiple of 4, at least 32, got {self.image_size}")
        if self.generator == "unet" and self.gradient_checkpointing:
            raise ValueError(
                "--gradient-checkpointing recomputes residual blocks, which --generator unet does not have"
            )
        if self.load_size is not None and self.load_size < self.image_size:
            raise ValueError(
                f"--load-size {self.load_size} is smaller than --image-size {self.image_size}, which is cut from it"
            )
        if self.channels_a != self.channels_b and self.identity_weight:
            raise ValueError(
                f"--identity-weight {self.identity_weight} needs domains of equally many channels, got {self.channels_a} and "
                f"{self.channels_b}: leave it out"
            )
        self.d_term, self.unstitched = form(
            self.mixing, self.d_term, self.unstitched, d_real=self.d_real, d_layer=self.d_layer, gan_loss=self.gan_loss
        )
        if self.compile and (self.d_layer or self.r1 or self.r2):
            raise ValueError(
                "--compile goes with none of --d-layer, --r1 and --r2: compiled networks take no hooks and no second derivatives"
            )
        if self.d_alpha is not None and self.shared_lambda:
            raise ValueError(
                f"--d-alpha {self.d_alpha} is for the discriminators' own lambdas, which need --no-shared-lambda"
            )


def unet_depth(size: int) -> int:
    """How often a U-Net halves images of this side: at most 8 times, as published for 256 px."""
    return min(8, (size & -size).bit_length() - 1)


def settings_from(argv: Sequence[str]) -> GanSettings:
    """Settings from command-line words: flags, over the resumed run's settings, the --config file's or the preset's."""
    from mixgan.data.domains import find_maps

    line = CommandLine(GanSettings, argv, prog="mixgan train-gan")
    own = {"epochs": 200} if line.get("mixing") == "none" else {}  # MixCycleGAN needs 150 (Understanding Mixup V-B)
    if line.get("channels_a") != line.get("channels_b"):
        own["identity_weight"] = 0
    root, known = line.get("data_root"), {}
    if line.get("dataset") == "auto" and (line.get("domain_a") or (find_maps(root) == root and root.name != "maps")):
        known["dataset"] = "folders"  # trainA and trainB in --data-root itself are of any two domains
    if known.get("dataset", line.get("dataset")) == "folders":
        values = {name: line.get(name) for name in ("dataset", "data_root", "domain_a", "domain_b", "names")}
        known["names"] = ",".join(domain_names({**values, **known}))
    settings = resolve(
        line,
        real=("maps", "Google Maps"),
        is_there=lambda root: find_maps(root) is not None,
        presets={"quick": QUICK | own, "paper": PAPER | own},
        **known,
    )
    if "identity_weight" in own and not line.resumed:
        print_once(f"Domains of {settings.channels_a} and {settings.channels_b} channels: --identity-weight is 0.")
    return settings


#: Mixers whose label is the share of the own image, from 0 to 1, and that need nothing but the images.
DcganMixing = Literal[
    "none", "mixup", "mixup-h", "mixup-v", "mixup-hv", "mixup-hc", "stitch-rect", "cutmix", "gridmix", "fmix"
]
#: About three minutes on two CPU cores, on the synthetic tiles.
DCGAN_QUICK = {
    "image_size": 32, "width": 32, "train_count": 2000, "eval_count": 500, "epochs": 32, "batch_size": 16,
    "lr": 5e-4, "eval_at_start": True,
}  # fmt: skip
#: Radford et al. 2015, at the side of CIFAR-10's images.
DCGAN_PAPER = {"image_size": 32, "width": 64, "batch_size": 128, "epochs": 50}


@dataclass(kw_only=True)
class DcganSettings(EvaluatedGanSettings):
    """Train DCGAN, which makes images from noise, with mixup of the discriminator's real and generated images."""

    title: ClassVar[str] = "DCGAN"

    dataset: Literal["auto", "tiles", "cifar10", "fashion-mnist"] = "auto"
    """Data set; auto takes CIFAR-10 where it is in --data-root, else the photos of the synthetic tiles."""
    batch_size: AtLeast2 = 128
    """Images per process and step; a batch norm needs two."""
    mixing: DcganMixing = "mixup"
    """How the discriminator's real and generated images are mixed; none: not at all, plain DCGAN."""
    alpha: Above0 = 1.0
    """lambda ~ Beta(alpha, alpha), the share of the real image."""
    d_term: DTerm = "replace"
    """Whether the mixed term replaces the discriminator's real and fake terms or is added to them."""
    gan_loss: GanKind = "bce"
    """Adversarial loss; hinge takes a soft target as the probability of a hard one; relativistic needs --mixing none."""
    image_size: Literal[32, 64, 128, 256] = 32
    """Side of the images in px, a power of two; other images are resized."""
    train_count: AtLeast1 | None = None
    """How many training images to use (default: all; 2000 tiles)."""
    eval_count: AtLeast2 | None = None
    """How many test images to compare with, and how many to generate (default: all; 500 tiles)."""
    width: AtLeast1 = 64
    """Channels of the layers next to the image in both networks."""
    latent: AtLeast1 = 100
    """Length of the noise vectors."""

    def check(self) -> None:
        """ValueError for a field that does not fit its annotation, or fields that do not fit one another."""
        super().check()
        check_pairs(self.gan_loss, self.mixing)


def dcgan_settings_from(argv: Sequence[str]) -> DcganSettings:
    """Settings from command-line words, as ``settings_from``."""
    from mixgan.gan.data import find_cifar10

    line = CommandLine(DcganSettings, argv, prog="mixgan dcgan")
    if "num_workers" in line.given:
        raise ValueError("--num-workers has no use for dcgan, which keeps all images in memory: leave it out")
    return resolve(
        line,
        real=("cifar10", "CIFAR-10"),
        is_there=lambda root: find_cifar10(root) is not None,
        presets={"quick": DCGAN_QUICK, "paper": DCGAN_PAPER},
    )
