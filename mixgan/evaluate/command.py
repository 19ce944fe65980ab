"""The command behind recipes/fid.py: two folders in, metrics on the terminal, as JSON and as a page."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from mixgan.engine.annotations import AtLeast0, AtLeast1, Positional, Range, Seed
from mixgan.engine.command import launcher_wish
from mixgan.engine.config import CommonSettings, Settings, read_options

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mixgan.evaluate.comparison import Comparison
    from mixgan.evaluate.features import FeatureExtractor
    from mixgan.evaluate.sources import Images


@dataclass(frozen=True, kw_only=True)
class FidOptions(Settings):
    """Compare generated images with real ones: Frechet and kernel distance, precision and recall, density and coverage,
    Inception Score, and metrics of registered pairs."""

    title: ClassVar[str] = "comparison"
    renamed: ClassVar[Mapping[str, str]] = {
        "--features embedded": "--features bundled",
        "--inception-weights": "--feature-weights",
    }

    real: Annotated[Path, Positional("REAL")]
    """Folder of real images with its subfolders, or an .npz file: statistics of pytorch-fid or clean-fid, or ADM's arr_0."""
    fake: Annotated[tuple[Path, ...], Positional("FAKE")]
    """Folders of generated images, .npz files, or runs: of MixCycleGAN, which translates its own test set, or of dcgan."""
    features: str = "auto"
    """auto, inception, bundled, dinov2, dinov2-b, clip, timm:NAME, or a run of classify; several with commas; auto: inception
    if its weights are here, else bundled."""
    feature_weights: Path | None = None
    """File of the feature network's weights, if not in a cache; for several networks, the folder of their published files."""
    dims: Literal[2048, 768, 192, 64] = 2048
    """Which features of Inception; published FID has 2048."""
    fast: bool = False
    """Compute Inception in bfloat16: faster, and no published FID any more."""
    protocol: Literal["pytorch-fid", "clean-fid"] = "pytorch-fid"
    """How Inception's images are resized: as pytorch-fid (bilinear) or as clean-fid (antialiased bicubic)."""
    weights: str = "last"
    """Which weights of a FAKE that is a run: last, best, step-N, or all checkpoints; several with commas."""
    direction: Literal["AtoB", "BtoA"] = "AtoB"
    """Which generator of a FAKE that is a run; REAL is of the other domain."""
    count: Annotated[int, Range(least=2)] | None = None
    """Images that a FAKE which is a run of dcgan generates, by its seed (default: as many as its own evaluations)."""
    train: Path | None = None
    """Images that the generator was trained on, a folder or its run folder: is it copying? REAL is then held-out."""
    resize: str = "auto"
    """Side in px that all images are resized to first, or none; auto: none, but with --domain the generated images' size."""
    domain: Literal["A", "B"] | None = None
    """REAL contains side-by-side pairs of Google Maps: compare with their photos (A) or maps (B)."""
    pairs: Literal["auto", "yes", "no"] = "auto"
    """Whether files of one name are registered pairs, for paired metrics; auto: only with --domain, whose set is paired."""
    json: Path | None = None
    """File for the metrics."""
    html: Path | None = None
    """File for the page."""
    save_statistics: Path | None = None
    """.npz file for the statistics of REAL, for this command and for pytorch-fid."""
    batch_size: AtLeast1 = 50
    """Images per batch."""
    sample: AtLeast1 = 5000
    """How many features of each set are kept for all metrics but the Frechet distance."""
    bootstrap: AtLeast0 = 0
    """Replicates of a bootstrap behind the interval of the Frechet distance; 0: the infinitesimal jackknife, much faster."""
    seed: Seed = 0
    """Seed of samples and draws."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about a file that cannot be read."""
    max_image_pixels: AtLeast1 | None = None
    """Read images of up to this many pixels (default: 178,956,970, Pillow's limit against decompression bombs)."""
    cache: Path | None = None
    """Folder where features of REAL are stored between calls (default: ~/.cache/mixgan/statistics)."""
    use_cache: bool = True
    """Store the features of REAL there, and take them from there if nothing has changed."""
    threads: AtLeast0 = 0
    """CPU threads (default: all cores, shared by the processes of this machine)."""

    def check(self) -> None:
        """ValueError for values out of range and for files that could not be written in the end."""
        super().check()
        if self.resize not in ("auto", "none") and not (self.resize.isdecimal() and 0 < int(self.resize) <= 2**14):
            raise ValueError(f"--resize must be auto, none or a number of pixels up to {2**14}, got {self.resize}")
        if self.bootstrap == 1:
            raise ValueError(f"--bootstrap must be 0 or at least 2, got {self.bootstrap}")
        outputs = {"--json": self.json, "--html": self.html, "--save-statistics": self.save_statistics}
        for flag, path in ((flag, path) for flag, path in outputs.items() if path is not None):
            if not path.parent.is_dir():
                raise ValueError(f"the folder of {flag} {path} does not exist")
            if path.is_dir():
                raise ValueError(f"{flag} must name a file, but {path} is a folder")
            if not os.access(path.parent, os.W_OK):
                raise ValueError(f"the folder of {flag} {path} cannot be written to")
        if self.save_statistics and self.save_statistics.suffix != ".npz":
            raise ValueError(f"--save-statistics must end in .npz, got {self.save_statistics}")
        if self.save_statistics and self.real.suffix == ".npz" and not self.real.is_dir():
            raise ValueError(f"--save-statistics needs the images of REAL, but {self.real} is a statistics file")


@dataclass(frozen=True)
class Readers:
    """What the command reads with the help of packages above this one, handed in by ``mixgan.cli``.

    Attributes:
        checkpoint: a classifier's run -> its features.
        run: a run folder, a direction and --count -> a trained GAN, whose ``generated(weights)`` are images that it generates
            and their training step by name, and whose ``training_images()`` are those of the domain that it generates.
    """

    checkpoint: "Callable[[Path], FeatureExtractor] | None" = None
    run: "Callable[[Path, Literal['AtoB', 'BtoA'], int | None], Any] | None" = None


def main(argv: Sequence[str], *, readers: Readers = Readers()) -> None:
    """The command; ``readers`` know runs, for --features and FAKE."""
    options, _ = read_options(FidOptions, argv, prog="mixgan fid")
    from mixgan.engine.accelerator import make_accelerator
    from mixgan.engine.run_folder import write_json

    shared = {name: getattr(options, name) for name in ("threads", "seed", "max_image_pixels")}
    accelerator = make_accelerator(CommonSettings(**shared, **launcher_wish()))
    result = run(options, accelerator, readers)
    if accelerator.is_main_process:
        if options.json:
            write_json(options.json, result.to_dict())
        if options.html:
            from mixgan.evaluate.page import write_page

            write_page(options.html, result)
        show(result)
        if options.html:
            print(f"page: {options.html}")
    accelerator.end_training()


def run(options: FidOptions, accelerator: "Accelerator", readers: Readers = Readers()) -> "Comparison":
    """``mixgan.evaluate.compare`` with the options of the command."""
    from mixgan.engine.accelerator import main_first
    from mixgan.evaluate.comparison import compare
    from mixgan.evaluate.feature_set import ReferenceCache
    from mixgan.evaluate.features import find_extractors

    how: Any = {name: getattr(options, name) for name in ("dims", "fast", "protocol")}
    how["checkpoint"] = readers.checkpoint
    extractors = main_first(accelerator, lambda: find_extractors(options.features, options.feature_weights, **how))
    fakes, steps = find_fakes(options, readers)
    train: Images | None = options.train
    if options.train is not None and _is_run(options.train):
        train = _read_run(options.train, options, readers, "--train").training_images()
    same = ("domain", "on_bad_image", "pairs", "batch_size", "sample", "bootstrap", "seed", "save_statistics")
    how = {name: getattr(options, name) for name in same}
    how["resize"] = (
        int(options.resize) if options.resize.isdecimal() else {"auto": "auto", "none": None}[options.resize]
    )
    how["cache"] = ReferenceCache(options.cache) if options.use_cache else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "skipped .* image files")  # named among the comparison's own warnings
        result = compare(
            options.real, fakes, features=extractors, train=train, accelerator=accelerator, verbose=True, **how
        )
    for name, one in (result.fakes or {next(iter(fakes)): result}).items():
        one.step = steps.get(name)
    result.step = next(iter(steps.values()), None)
    names = [extractor.name for extractor in extractors]
    for_inception = options.fast or options.dims != 2048 or options.protocol != "pytorch-fid"
    if for_inception and not any(name.startswith("inception") for name in names):
        text = "--fast, --dims and --protocol are for Inception, they change nothing about"
        result.warnings.append(f"{text} {' and '.join(names)} features")
    return result


def find_fakes(options: FidOptions, readers: Readers) -> "tuple[dict[str, Images], dict[str, int | None]]":
    """The generated sets by name, and the training steps of those that runs generate."""
    fakes: dict[str, Images] = {}
    steps: dict[str, int | None] = {}
    for path in options.fake:
        if readers.run is not None and _is_run(path):
            for name, (images, step) in _read_run(path, options, readers, "FAKE").generated(options.weights).items():
                fakes[name], steps[name] = images, step
        else:
            fakes[str(path)] = path
    for flag, value, default in (("--weights", options.weights, "last"), ("--count", options.count, None)):
        if value != default and not steps:
            raise ValueError(f"{flag} {value} is for runs, but no FAKE is a run folder")
    return fakes, steps


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file() and (path / "checkpoints").is_dir()


def _read_run(path: Path, options: FidOptions, readers: Readers, what: str) -> Any:
    if readers.run is None:
        raise ValueError(f"{what} {path} is a run folder, which recipes/fid.py and mixgan fid take, not this module")
    return readers.run(path, options.direction, options.count if what == "FAKE" else None)


def show(result: "Comparison") -> None:
    """Print the metrics and warnings."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = 160  # rather long lines than broken cells
    tables: list[list[dict[str, Any]]] = [
        [{"metric": name, "value": value, "how": how} for name, value, how in metric_rows(one)]
        for one in [result, *result.others.values()]
    ]
    tables += [set_rows(result, features) for features in ((result.features, *result.others) if result.fakes else ())]
    for rows in tables:
        table = Table(box=SIMPLE_HEAD, show_edge=False)
        for column in dict.fromkeys(column for row in rows for column in row):
            is_text = column in ("generated", "metric", "how")
            width = 24 if column == "metric" else None
            style = "dim" if column == "how" else ""
            table.add_column(
                column, justify="left" if is_text else "right", no_wrap=column == "value", min_width=width, style=style
            )
        for row in rows:
            cells = [row.get(str(column.header), "") for column in table.columns]
            table.add_row(*(Text(cell if isinstance(cell, str) else f"{cell:.4g}") for cell in cells))
        console.print(table)
    for text in all_warnings(result):
        console.print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def all_warnings(result: "Comparison") -> list[str]:
    """Those of all sets in all features, each once."""
    sets = result.fakes.values() if result.fakes else [result]
    return list(dict.fromkeys(text for one in sets for each in (one, *one.others.values()) for text in each.warnings))


def set_rows(result: "Comparison", features: str) -> list[dict[str, Any]]:
    """A row for every generated set: its name, its training step, and its metrics in these features."""
    rows = []
    for name, one in result.fakes.items():
        space = one if one.features == features else one.others[features]
        row: dict[str, Any] = {"generated": name} | ({} if one.step is None else {"step": one.step})
        row |= {} if space.fd is None else {space.distance: space.fd}
        values = {key: getattr(space, key) for key in SHORT}
        rows.append(row | {key.replace("_", " "): value for key, value in values.items() if value is not None})
    return rows


#: Fields of Comparison in the table of several generated sets, beside the distance.
SHORT = ("kid", "cmmd", "precision", "recall", "clipped_density", "clipped_coverage", "authpct", "ct", "rmse")
#: Field of Comparison -> name, and how it is computed and which way is better.
ROWS = {
    "kid": ("kernel distance (KID)", "cubic kernel, 100 subsets of {kid_subset_size}; around 0 for equal sets, lower is better"),
    "cmmd": ("CMMD", "RBF kernel, sigma 10, times 1000, kept features; lower is better"),
    "precision": ("precision", "k = 3, kept features; share of generated images among real ones"),
    "recall": ("recall", "k = 3, kept features; share of real images among generated ones"),
    "density": ("density", "k = 5, kept features; near 1 for equal sets"),
    "coverage": ("coverage", "k = 5, kept features; share of real images with a generated one near by"),
    "clipped_density": ("Clipped Density", "k = 5, kept features; share of good generated images, 1 is best"),
    "clipped_coverage": ("Clipped Coverage", "k = 5, kept features; as if this share covered the real images, 1 is best"),
    "inception_score": ("Inception Score", "{features} classifier, 10 splits of the generated images; higher is better"),
    "authpct": ("AuthPct", "% of generated images that are no near copies of one of {n_train} training images"),
    "nearer_to_train": (
        "nearer to training images", "share of generated images nearer to them than held-out ones are; 0.5 without copying"
    ),
    "ct": ("C_T", "z-score of that, far below 0 means copies; p = {ct_p:.3g}"),
    "rmse": ("RMSE", "per channel, 0..255, mean over {n_pairs} pairs of one file name; lower is better"),
    "rmse_gcgan": ("RMSE, GcGAN's convention", "at 256 px, channels summed; lower is better"),
    "acc5": ("pixels within 5", "share of pixels with all channels closer than 5"),
    "acc10": ("pixels within 10", "share of pixels with all channels closer than 10"),
    "psnr": ("PSNR", "dB; higher is better"),
    "ssim": ("SSIM", "higher is better"),
}  # fmt: skip


def metric_rows(result: "Comparison") -> list[tuple[str, float, str]]:
    """(name, value, how it was computed) of every metric that was computed."""
    rows = []
    values = result.to_dict()
    if result.fd is not None:
        real, fake = ("an unknown number of" if n is None else n for n in (result.n_real, result.n_fake))
        how = f"{real} real, {fake} generated images"
        if result.fd_low is not None:
            how += f", 95 % interval {result.fd_low:.4g} to {result.fd_high:.4g}"
        if not result.distance.startswith(("FID", "FD-")):
            how += "; not comparable with published distances"
        rows.append((result.distance, result.fd, f"{how}; lower is better"))
    for key, (name, how) in ROWS.items():
        if values.get(key) is not None:
            spread = values.get(f"{key}_std")
            deviation = "" if spread is None else f"; deviation {spread:.4g}"
            rows.append((name, values[key], how.format(**values) + deviation))
    return rows
