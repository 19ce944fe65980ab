"""The settings of the classify command: which flags it has, and where their defaults come from."""

import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from classify.data import resolve_dataset
from classify.methods import METHODS, list_methods, method_options
from classify.methods.mixed_samples import MixSchedule
from classify.networks import check_network
from classify.presets import TABLES, preset_values
from classify.weights import saved_network
from mixgan.engine.config import (
    CommonSettings,
    check_same_settings,
    first_look,
    from_json,
    parse,
    print_once,
    resumed_defaults,
)
from mixgan.mixing.registry import ALIASES, mixer_options, parts_of

AUTO_NOTES = {
    "tiles": "No CIFAR-10 under {root}: using the synthetic tiles (--dataset cifar10 --download fetches it).",
    "cifar10": "Using CIFAR-10 from {root}.",
}


@dataclass(kw_only=True)
class ClassifySettings(CommonSettings):
    """Train a classifier with a mixing method."""

    preset: str | None = None
    """Defaults for the other flags: quick, paper (default: quick on tiles, paper on real data), or a table of the papers, whose
    row --dataset, --network and --method choose; --list-presets shows all."""
    list_presets: bool = False
    """List the tables of the papers that are presets and end."""
    method: str = "mixup"
    """Training method; --list-methods shows all."""
    list_methods: bool = False
    """List the training methods and end."""
    dataset: str = "auto"
    """Data set; auto takes CIFAR-10 where it lies under --data-root, else the synthetic tiles."""
    network: str = "preact-resnet18"
    """Network architecture."""
    finetune_from: Path | None = None
    """Run folder (or its weights file) whose network is trained further; double input and output become single."""
    init_from: str | None = None
    """Weights to begin with: torchvision (trained on ImageNet), or an earlier run's folder or .safetensors file."""
    image_size: int | None = None
    """Side of the images in px (default: the data set's own)."""
    tiles_view: Literal["photo", "map", "both"] = "photo"
    """Which pictures of the synthetic tiles to classify."""
    train_count: int | None = None
    """How many training tiles to make (default: 5000)."""
    lr: float = 0.1
    """Learning rate of SGD."""
    momentum: float = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Nesterov's momentum."""
    weight_decay: float = 1e-4
    """Weight decay, on all parameters."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """Learning-rate schedule over --epochs."""
    lr_drops: tuple[float, ...] = (0.5, 0.75)
    """Shares of the run at which the schedule "steps" divides the rate by 10."""
    warmup: float = 0.0
    """Share of the run in which the schedule "cosine" rises from 0."""
    min_lr: float = 0.0
    """Learning rate at which the schedule "cosine" ends."""
    side_min_lr: float | None = None
    """The same for what a method trains beside the network, as AutoMix's Mix Block (default: --min-lr)."""
    ema: float = 0.0
    """Decay of a moving average of the network's weights, which is then what is tested, and saved too; 0.999, or 0: none."""
    compile: bool = False
    """Compile the network with torch.compile: a slow first step, faster ones after it."""
    normalise: Literal["mean-std", "mean"] = "mean-std"
    """Subtract the data set's channel means and divide by their deviations, or only subtract."""
    eval_batch_size: int = 500
    """Images per batch in evaluation."""
    channels_last: bool = False
    """Store images and weights channels last."""
    mix_prob: float = 1.0
    """Share of the batches that are mixed."""
    mix_off_epoch: int | None = None
    """No mixing from this epoch on (counted from 0)."""
    mix_off_last: int | None = None
    """No mixing in the last so many epochs."""
    mix_epochs: str | None = None
    """K/N: mixing in the last K of every N epochs, e.g. 2/10."""
    mix_warmup: int = 0
    """The share of mixed batches rises over this many epochs."""
    mixer: Any = field(default_factory=dict)
    """Options of the mixing method."""
    method_options: Any = field(default_factory=dict)
    """Options of the training method."""

    def check(self) -> None:
        """ValueError for values out of range, quoting flag and value."""
        super().check()
        if self.lr <= 0:
            raise ValueError(f"--lr must be above 0, got {self.lr}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"--momentum must lie in [0, 1), got {self.momentum}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"--warmup must lie in [0, 1), got {self.warmup}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"--ema must be at least 0 and below 1, got {self.ema}")
        self._check_floors()
        for name in ("image_size", "train_count", "eval_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
        if self.dataset != "tiles" and (self.train_count is not None or self.tiles_view != "photo"):
            raise ValueError(f"--train-count and --tiles-view belong to the tiles, not to --dataset {self.dataset}")
        if self.init_from and self.finetune_from:
            raise ValueError("--init-from and --finetune-from both name weights to begin with: give one of them")
        self.mix_schedule()
        check_network(self.network)

    def _check_floors(self) -> None:
        for name in ("min_lr", "side_min_lr"):
            floor, flag = getattr(self, name), f"--{name.replace('_', '-')}"
            if not floor:
                continue
            if not 0 <= floor <= self.lr:
                raise ValueError(f"{flag} must lie between 0 and --lr, which is {self.lr:g}, got {floor:g}")
            if self.schedule != "cosine":
                raise ValueError(
                    f"{flag} is where the schedule cosine ends; --schedule {self.schedule} has no such end"
                )

    def mix_schedule(self) -> MixSchedule:
        """When mixing is on."""
        off_epoch = self.mix_off_epoch
        if self.mix_off_last is not None:
            if off_epoch is not None:
                raise ValueError("--mix-off-epoch and --mix-off-last both say when mixing ends: give one of them")
            if not 0 <= self.mix_off_last <= self.epochs:
                raise ValueError(f"--mix-off-last must lie in 0..{self.epochs} (--epochs), got {self.mix_off_last}")
            off_epoch = self.epochs - self.mix_off_last if self.mix_off_last else None
        return MixSchedule(odds=self.mix_prob, off_epoch=off_epoch, epochs=self.mix_epochs, warmup=self.mix_warmup)


def settings_from(argv: Sequence[str]) -> ClassifySettings:
    """Settings from command-line words: flags, over the resumed run's settings or the preset's.

    Raises:
        ValueError: unknown method, data set, network or preset; nothing to resume; a resumed run's setting changed.
    """
    look = first_look(ClassifySettings, argv)
    if look.list_methods or look.list_presets:
        return look
    resuming = look.resume and look.output_dir is not None
    if resuming:
        look = look_again(look.output_dir, argv)
    row = {} if resuming or look.preset not in TABLES else TABLES[look.preset].first_row(look.dataset)
    if row:
        look = first_look(ClassifySettings, argv, defaults=row)
        say_outside(look)
    settings_type = with_options(known_method(look.method))
    dataset = resolve_dataset(look.dataset, look.data_root)
    if resuming:
        defaults = resumed_defaults(look.output_dir, settings_type)
    else:
        values = preset_values(look.preset, dataset=dataset, method=look.method)
        defaults = {**row, **from_json(settings_type, values)}
    finetuning = look.finetune_from is not None and not resuming
    if finetuning:
        defaults = {**defaults, "network": saved_network(look.finetune_from)[1]["network"]}
    settings = parse(settings_type, argv, defaults=defaults, prog="classify", description=ClassifySettings.__doc__)
    if finetuning and settings.network != defaults["network"]:
        raise ValueError(
            f"--network {settings.network} does not fit --finetune-from {settings.finetune_from}: its network is "
            f"{defaults['network']}"
        )
    if settings.dataset == "auto":
        settings.dataset = dataset
        print_once(AUTO_NOTES[dataset].format(root=settings.data_root))
    settings.check()
    if settings.resume:
        check_same_settings(settings, settings.output_dir)
    return settings


def say_outside(look: ClassifySettings) -> None:
    """A line where flags name a row that the table of the preset does not have; its other settings are used then."""
    flags = TABLES[look.preset].outside(dataset=look.dataset, network=look.network, method=look.method)
    if flags:
        print_once(f"{look.preset} has no row for {' '.join(flags)}: its other settings are used.")


def look_again(output_dir: Path, argv: Sequence[str]) -> ClassifySettings:
    """The first look at a run that goes on; its method, which decides about the options, cannot change.

    Raises:
        ValueError: there is no such run, or another method is named.
    """
    method = resumed_defaults(output_dir, ClassifySettings)["method"]
    look = first_look(ClassifySettings, argv, defaults={"method": method})
    if look.method != method:
        raise ValueError(f"cannot resume {output_dir} with other settings: --method is {look.method}, was {method}")
    return look


def known_method(name: str) -> str:
    """The name itself; ValueError naming the known ones where it is neither one of them nor an alias."""
    unknown = [part for part in name.split("+") if part not in (*list_methods(), *ALIASES)]
    if unknown:
        raise ValueError(f"unknown --method {unknown[0]!r}; known: {', '.join(list_methods())}")
    return name


def with_options(method: str) -> type[ClassifySettings]:
    """ClassifySettings whose fields ``mixer`` and ``method_options`` have the options of this method and its mixer, so that
    --help shows them and typos are errors."""
    of_mixer = [] if method in METHODS else mixer_fields(method)
    parts = [] if method in METHODS else parts_of(method)
    if len(parts) > 1:
        own = ((part.replace("-", "_"), dataclass_of(mixer_fields(part))) for part in parts)
        of_mixer += [(name, part, field(default_factory=part)) for name, part in own]
    mixer, options = dataclass_of(of_mixer), dataclass_of(fields_of(method_options(method)))
    fields = [
        ("mixer", mixer, field(default_factory=mixer)),
        # --method names the method, --method.layers is one of its options.
        ("method_options", Annotated[options, tyro.conf.arg(name="method")], field(default_factory=options)),
    ]
    return dataclasses.make_dataclass("ClassifySettings", fields, bases=(ClassifySettings,), kw_only=True)


def dataclass_of(fields: list[tuple[str, Any, Any]]) -> type:
    """A dataclass of options."""
    return dataclasses.make_dataclass("Options", fields, kw_only=True)


def mixer_fields(mixer: str) -> list[tuple[str, Any, Any]]:
    """The options of a mixer, without those that the data set decides."""
    return fields_of({name: option for name, option in mixer_options(mixer).items() if name not in ("mean", "std")})


def fields_of(options: dict[str, inspect.Parameter]) -> list[tuple[str, Any, Any]]:
    """Name, type and default of options."""
    return [(name, option.annotation, field(default=option.default)) for name, option in options.items()]


def as_dict(options: Any) -> dict[str, Any]:
    """The options of ``mixer`` or ``method_options`` by name."""
    return dataclasses.asdict(options) if dataclasses.is_dataclass(options) else dict(options)
