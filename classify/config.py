"""The settings of the classify command: which flags it has, and where their defaults come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from classify.data import NoiseKind, find_image_folder, resolve_dataset
from classify.methods import METHODS, list_methods, method_options
from classify.methods.method import MixSchedule
from classify.presets import TABLES, preset_values
from mixgan.engine.annotations import Above0, AtLeast0, AtLeast1, BelowOne, Probability, Range, convert_options
from mixgan.engine.command import print_once
from mixgan.engine.config import CommandLine, CommonSettings
from mixgan.mixing.registry import ALIASES, mixer_options, parts_of

AUTO_NOTES = {
    "tiles": "No CIFAR-10 under {root}: using the synthetic tiles (--dataset cifar10 --download fetches it).",
    "cifar10": "Using CIFAR-10 from {root}.",
}
Rate = Annotated[float, Range(least=0)]


@dataclass(kw_only=True)
class ClassifySettings(CommonSettings):
    """Train a classifier with a mixing method."""

    title: ClassVar[str] = "classification"
    renamed: ClassVar[Mapping[str, str]] = {
        "--mix-odds": "--mix-prob",
        "--method.odds": "--method.prob",
        "--mixer.odds": "--mixer.p",
        "--mixer.h-odds": "--mixer.h-prob",
        "--mixer.patchshuffle.odds": "--mixer.patchshuffle.p",  # of composites
        "--mixer.mixup-hv.h-odds": "--mixer.mixup-hv.h-prob",
        "--mixer.mixup-hc.h-odds": "--mixer.mixup-hc.h-prob",
        "--network embedded": "--network bundled",
    }

    preset: str | None = None
    """Defaults for the other flags: quick, paper (default: quick on tiles, paper on real data), or a table of the papers, whose
    row --dataset, --network and --method choose; --list-presets shows all."""
    list_presets: bool = False
    """List the tables of the papers that are presets and end."""
    method: str = "mixup"
    """Training method; --list-methods shows all."""
    list_methods: bool = False
    """List the training methods and end."""
    list_networks: bool = False
    """List the networks and end."""
    dataset: str = "auto"
    """Data set; auto takes CIFAR-10 where it is in --data-root, else the synthetic tiles."""
    network: str = "preact-resnet18"
    """Network architecture; --list-networks shows all. conv9 has options: conv9:width=128,dropout=0.5."""
    finetune_from: Path | None = None
    """Run folder (or its weights file) whose network is trained further; double input and output become single."""
    init_from: str | None = None
    """Weights to begin with: torchvision (trained on ImageNet), or an earlier run's folder or .safetensors file."""
    image_size: AtLeast1 | None = None
    """Side of the images in px (default: the data set's own)."""
    tiles_view: Literal["photo", "map", "both"] = "photo"
    """Which pictures of the synthetic tiles to classify."""
    train_count: AtLeast1 | None = None
    """How many training images to use, at random from --seed (default: all); of the tiles, how many to make (5000)."""
    labels_per_class: AtLeast1 | None = None
    """Train on this many images of every class, at random from --seed; smaller subsets are part of larger ones."""
    label_noise: Probability = 0.0
    """Share of the training labels that are redrawn, at random from --seed; labels.json lists them."""
    label_noise_kind: NoiseKind = "symmetric"
    """Redrawn labels are any class alike, the own one included (symmetric), or the next class (pair)."""
    eval_count: AtLeast1 | None = None
    """How many test images to use, at equal distances (default: all); of the tiles, how many to make (1000)."""
    eval_every_epochs: AtLeast1 = 1
    """Epochs between evaluations; the end of the run is evaluated in any case."""
    crop: Literal["padded", "resized"] | None = None
    """Random crops for training: of the padded image, or a random part of it, 8 to 100 %, resized (default: padded for sets in
    memory, resized for those read from files)."""
    crop_padding: Literal["zeros", "reflect"] = "zeros"
    """What surrounds a training image by 4 px before a padded crop."""
    lr: Above0 = 0.1
    """Learning rate of SGD."""
    momentum: BelowOne = 0.9
    """Momentum of SGD."""
    nesterov: bool = True
    """Nesterov's momentum."""
    weight_decay: Rate = 1e-4
    """Weight decay, on all parameters."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """Learning-rate schedule over --epochs."""
    lr_drops: tuple[Probability, ...] = (0.5, 0.75)
    """Shares of the run at which the schedule "steps" divides the rate by 10."""
    restart_every: AtLeast1 | None = None
    """Epochs after which the schedule "cosine" begins again; --epochs should be a multiple."""
    warmup: BelowOne = 0.0
    """Share of the run in which the schedule "cosine" rises from 0."""
    min_lr: Rate = 0.0
    """Learning rate at which the schedule "cosine" ends."""
    side_lr: Above0 | None = None
    """Learning rate of what a method trains beside the network, as AutoMix's Mix Block (default: --lr)."""
    side_min_lr: Rate | None = None
    """Where that rate ends (default: --min-lr)."""
    ema: BelowOne = 0.0
    """Decay of a moving average of the network's weights, which is then what is tested, and saved too; 0.999, or 0: none."""
    compile: bool = False
    """Compile the network with torch.compile: a slow first step, faster ones after it."""
    normalise: Literal["mean-std", "mean"] = "mean-std"
    """Subtract the data set's channel means and divide by their deviations, or only subtract."""
    eval_batch_size: AtLeast1 = 500
    """Images per batch in evaluation."""
    cache_gb: Rate | None = None
    """Image files that need more memory than this when decoded, in GB (10^9 bytes) per process, are read from disk when a batch
    needs them, by --num-workers processes; the batches are the same (default: a quarter of the free memory)."""
    channels_last: bool = False
    """Store images and weights channels last."""
    mix_prob: Probability = 1.0
    """Share of the batches that are mixed."""
    mix_off_epoch: AtLeast0 | None = None
    """No mixing from this epoch on (counted from 0)."""
    mix_off_last: AtLeast0 | None = None
    """No mixing in the last epochs, this many."""
    mix_epochs: str | None = None
    """K/N: mixing in the last K of every N epochs, e.g. 2/10."""
    mix_warmup: AtLeast0 = 0
    """The share of mixed batches rises over this many epochs."""
    partner: Literal["random", "same", "other", "balanced"] = "random"
    """Whom samples are mixed with: anyone, their own class, other classes, or all classes of the batch alike."""
    mixer: dict[str, Any] = field(default_factory=dict)
    """Options of the mixing method by name: --mixer.alpha 0.2."""
    method_options: dict[str, Any] = field(default_factory=dict)
    """Options of the training method by name: --method.layers stage1."""

    def check(self) -> None:
        """ValueError for a field that does not fit its annotation, or fields that do not fit one another."""
        from classify.networks import check_network

        super().check()
        self.mixer = mixer_values(known_method(self.method), self.mixer)
        self.method_options = convert_options(self.method_options, method_options(self.method), "--method")
        side = ("--lr", self.lr) if self.side_lr is None else ("--side-lr", self.side_lr)
        side_floor = ("--min-lr", self.min_lr) if self.side_min_lr is None else ("--side-min-lr", self.side_min_lr)
        for (flag, floor), (base, rate) in ((("--min-lr", self.min_lr), ("--lr", self.lr)), (side_floor, side)):
            if floor > rate:
                hint = "; give --side-min-lr" if (flag, base) == ("--min-lr", "--side-lr") else ""
                raise ValueError(f"{flag} must be at most {base}, which is {rate:g}, got {floor:g}{hint}")
            if floor and self.schedule != "cosine":
                raise ValueError(
                    f"{flag} is where the schedule cosine ends; --schedule {self.schedule} has no such end"
                )
        if self.restart_every is not None and (self.schedule != "cosine" or self.warmup):
            other = "--warmup" if self.warmup else f"--schedule {self.schedule}"
            raise ValueError(f"--restart-every repeats the schedule cosine from its full rate: leave out {other}")
        if self.dataset not in ("tiles", "auto") and self.tiles_view != "photo":
            raise ValueError(f"--tiles-view belongs to the tiles, not to --dataset {self.dataset}")
        if self.init_from and self.finetune_from:
            raise ValueError("--init-from and --finetune-from both name weights to begin with: give one of them")
        self.mix_schedule()
        check_network(self.network)

    def data_options(self, split: str) -> dict[str, Any]:
        """Keywords of ``load_dataset`` for a split, size and download left out."""
        options: dict[str, Any] = {"normalise": self.normalise, "on_bad_image": self.on_bad_image}
        if self.dataset == "tiles":
            options["tiles_view"] = self.tiles_view
        if split == "test":
            return {**options, "count": self.eval_count}
        labels = {"label_noise": self.label_noise, "label_noise_kind": self.label_noise_kind, "labels_seed": self.seed}
        return {**options, "count": self.train_count, "labels_per_class": self.labels_per_class, **labels}

    def mix_schedule(self) -> MixSchedule:
        """When mixing is on."""
        off_epoch = self.mix_off_epoch
        if self.mix_off_last is not None:
            if off_epoch is not None:
                raise ValueError("--mix-off-epoch and --mix-off-last both say when mixing ends: give one of them")
            if self.mix_off_last > self.epochs:
                raise ValueError(f"--mix-off-last must be at most --epochs, {self.epochs}, got {self.mix_off_last}")
            off_epoch = self.epochs - self.mix_off_last if self.mix_off_last else None
        return MixSchedule(
            prob=self.mix_prob,
            off_epoch=off_epoch,
            epochs=self.mix_epochs,
            warmup=self.mix_warmup,
            partner=self.partner,
        )


def settings_from(argv: Sequence[str]) -> ClassifySettings:
    """Settings from command-line words: flags, over the resumed run's settings, the --config file's or the preset's.

    Raises:
        ValueError: an unknown flag, method, data set, network or preset, a value that does not fit, nothing to resume, a
            resumed run's setting changed.
    """
    line = CommandLine(ClassifySettings, argv, prog="mixgan classify")
    lists = {name: line.get(name) for name in ("list_methods", "list_presets", "list_networks")}
    if any(lists.values()):
        return ClassifySettings(**lists)
    table = None if line.resumed else TABLES.get(line.get("preset"))
    row = table.first_row(line.get("dataset")) if table else {}
    method, asked = known_method(line.get("method", row.get("method"))), line.get("dataset", row.get("dataset"))
    if line.resumed.get("method", method) != method:
        raise ValueError(f"cannot resume with other settings: --method is {method}, was {line.resumed['method']}")
    flags = table.outside(dataset=asked, network=line.get("network", row["network"]), method=method) if table else []
    if flags:
        print_once(f"{line.get('preset')} has no row for {' '.join(flags)}: its other settings are used.")
    dataset = resolve_dataset(asked, line.get("data_root"))
    preset = {} if line.resumed else {**row, **preset_values(line.get("preset"), dataset=dataset, method=method)}
    finetuned = None if line.resumed else line.get("finetune_from")
    if finetuned:
        from classify.weights import saved_network

        preset["network"] = saved_network(finetuned)[1]["network"]
    settings = line.settings(preset, options=options_of(method), dataset=dataset)
    if finetuned and settings.network != preset["network"]:
        raise ValueError(
            f"--network {settings.network} does not fit --finetune-from {finetuned}: its network is {preset['network']}"
        )
    if asked == "auto":
        other = dataset == "tiles" and find_image_folder(settings.data_root)
        hint = " It has class folders, too: --dataset imagefolder trains on them." if other else ""
        print_once(AUTO_NOTES[dataset].format(root=settings.data_root) + hint)
    return settings


def known_method(name: str) -> str:
    """The name itself; ValueError naming the known ones where it is neither one of them nor an alias."""
    unknown = [part for part in name.split("+") if part not in (*list_methods(), *ALIASES)]
    if unknown:
        raise ValueError(f"unknown --method {unknown[0]!r}; known: {', '.join(list_methods())}")
    return name


def options_of(method: str) -> dict[str, dict[str, Parameter]]:
    """The options of a method and its mixer by their flags' prefix: mixer, method, for composites mixer.cutmix and so on."""
    if method in METHODS:
        return {"mixer": {}, "method": method_options(method)}
    parts = parts_of(method) if "+" in method else []
    mixers = {"mixer": method, **{f"mixer.{part}": part for part in parts}}
    of_data_set = ("mean", "std")
    return {
        **{
            prefix: {key: option for key, option in mixer_options(name).items() if key not in of_data_set}
            for prefix, name in mixers.items()
        },
        "method": method_options(method),
    }


def mixer_values(method: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method's mixer, those of a composite's parts in dictionaries under their names."""
    (_, own), *parts, _ = options_of(method).items()
    inner = {prefix.removeprefix("mixer.").replace("-", "_"): (f"--{prefix}", options) for prefix, options in parts}
    converted = convert_options({key: value for key, value in values.items() if key not in inner}, own, "--mixer")
    return converted | {
        key: convert_options(values.get(key, {}), options, flag) for key, (flag, options) in inner.items()
    }
