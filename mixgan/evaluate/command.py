"""The command behind recipes/fid.py: two folders in, metrics on the terminal, as JSON and as a page."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from mixgan.engine.annotations import AtLeast0, AtLeast1, Positional, Seed
from mixgan.engine.config import CommonSettings, Settings, read_options
from mixgan.engine.launcher import launcher_wish

if TYPE_CHECKING:
    from accelerate import Accelerator

    from mixgan.evaluate.comparison import Comparison
    from mixgan.evaluate.features import FeatureExtractor


@dataclass(frozen=True, kw_only=True)
class FidOptions(Settings):
    """Compare generated images with real ones: Frechet and kernel distance, precision and recall, density and coverage,
    Inception Score, and metrics of registered pairs."""

    title: ClassVar[str] = "comparison"
    renamed: ClassVar[Mapping[str, str]] = {"--features embedded": "--features bundled"}

    real: Annotated[Path, Positional("REAL")]
    """Folder of real images with its subfolders, or an .npz file of statistics as pytorch-fid writes it."""
    fake: Annotated[Path, Positional("FAKE")]
    """Folder of generated images, or an .npz file."""
    features: str = "auto"
    """auto, inception, bundled, or a checkpoint of the classify command; auto is inception if its weights are here."""
    inception_weights: Path | None = None
    """File of the Inception weights, if not in torch's hub cache."""
    dims: Literal[2048, 768, 192, 64] = 2048
    """Which features of Inception; published FID has 2048."""
    fast: bool = False
    """Compute Inception in bfloat16: faster, and no published FID any more."""
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
    bootstrap: AtLeast0 = 50
    """Replicates behind the interval of the Frechet distance; 0 for none."""
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
        if self.resize not in ("auto", "none") and not (self.resize.isdigit() and int(self.resize) > 0):
            raise ValueError(f"--resize must be auto, none or a number of pixels, got {self.resize}")
        if self.bootstrap == 1:
            raise ValueError(f"--bootstrap must be 0 or at least 2, got {self.bootstrap}")
        for flag, path in (("--json", self.json), ("--html", self.html), ("--save-statistics", self.save_statistics)):
            if path is None:
                continue
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


def main(argv: Sequence[str], *, read_checkpoint: "Callable[[Path], FeatureExtractor] | None" = None) -> None:
    """The command.

    Args:
        argv: its words.
        read_checkpoint: features of a classifier's checkpoint; None where only the built-in features are known.
    """
    options, _ = read_options(FidOptions, argv, prog="mixgan fid")
    from mixgan.engine.accelerator import make_accelerator
    from mixgan.engine.run_folder import write_json

    shared = {name: getattr(options, name) for name in ("threads", "seed", "max_image_pixels")}
    accelerator = make_accelerator(CommonSettings(**shared, **launcher_wish()))
    result = run(options, accelerator, read_checkpoint)
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


def run(
    options: FidOptions, accelerator: "Accelerator", read_checkpoint: "Callable[[Path], FeatureExtractor] | None" = None
) -> "Comparison":
    """``mixgan.evaluate.compare`` with the options of the command."""
    from mixgan.engine.accelerator import main_first
    from mixgan.evaluate.comparison import compare
    from mixgan.evaluate.feature_set import ReferenceCache

    extractor = main_first(accelerator, lambda: find_features(options, read_checkpoint))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "skipped .* image files")  # named among the comparison's own warnings
        result = compare(
            options.real,
            options.fake,
            features=extractor,
            resize="auto" if options.resize == "auto" else None if options.resize == "none" else int(options.resize),
            domain=options.domain,
            on_bad_image=options.on_bad_image,
            pairs=options.pairs,
            batch_size=options.batch_size,
            sample=options.sample,
            bootstrap=options.bootstrap,
            seed=options.seed,
            cache=ReferenceCache(options.cache) if options.use_cache else None,
            save_statistics=options.save_statistics,
            accelerator=accelerator,
            verbose=True,
        )
    if not extractor.name.startswith("inception") and (options.fast or options.dims != 2048):
        result.warnings.append(
            f"--fast and --dims are for Inception, they change nothing about {extractor.name} features"
        )
    return result


def find_features(
    options: FidOptions, read_checkpoint: "Callable[[Path], FeatureExtractor] | None"
) -> "FeatureExtractor":
    """The features that --features asks for."""
    from mixgan.evaluate.features import FEATURE_NAMES, choose_features

    if options.features in FEATURE_NAMES:
        return choose_features(
            options.features, inception_weights=options.inception_weights, dims=options.dims, fast=options.fast
        )
    known = f"--features must be one of {', '.join(FEATURE_NAMES)}"
    if read_checkpoint is None:
        raise ValueError(f"{known}, got {options.features}; recipes/fid.py takes checkpoints, too")
    if not Path(options.features).exists():
        raise ValueError(f"{known} or a checkpoint of classify; there is no file or folder {options.features}")
    return read_checkpoint(Path(options.features))


def show(result: "Comparison") -> None:
    """Print the metrics and warnings."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    table.add_column("metric", min_width=24)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("how", style="dim")
    for name, value, how in metric_rows(result):
        table.add_row(Text(name), f"{value:.4g}", Text(how))
    console.print(table)
    for text in result.warnings:
        console.print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)


#: (field of Comparison, name, how it is computed and which way is better)
ROWS = (
    (
        "kid",
        "kernel distance (KID)",
        "cubic kernel, 100 subsets of {kid_subset_size}; around 0 for equal sets, lower is better",
    ),
    ("precision", "precision", "k = 3, kept features; share of generated images among real ones"),
    ("recall", "recall", "k = 3, kept features; share of real images among generated ones"),
    ("density", "density", "k = 5, kept features; near 1 for equal sets"),
    ("coverage", "coverage", "k = 5, kept features; share of real images with a generated one near by"),
    (
        "inception_score",
        "Inception Score",
        "{features} classifier, 10 splits of the generated images; higher is better",
    ),
    ("rmse", "RMSE", "per channel, 0..255, mean over {n_pairs} pairs of one file name; lower is better"),
    ("rmse_gcgan", "RMSE, GcGAN's convention", "at 256 px, channels summed; lower is better"),
    ("acc5", "pixels within 5", "share of pixels with all channels closer than 5"),
    ("acc10", "pixels within 10", "share of pixels with all channels closer than 10"),
    ("psnr", "PSNR", "dB; higher is better"),
    ("ssim", "SSIM", "higher is better"),
)


def metric_rows(result: "Comparison") -> list[tuple[str, float, str]]:
    """(name, value, how it was computed) of every metric that was computed."""
    rows = []
    values = result.to_dict()
    if result.fd is not None:
        real, fake = ("an unknown number of" if n is None else n for n in (result.n_real, result.n_fake))
        how = f"{real} real, {fake} generated images"
        if result.fd_low is not None:
            how += f", 95 % interval {result.fd_low:.4g} to {result.fd_high:.4g} by bootstrap"
        rows.append((result.distance, result.fd, f"{how}; lower is better"))
    for key, name, how in ROWS:
        if values.get(key) is not None:
            spread = values.get(f"{key}_std")
            deviation = "" if spread is None else f"; deviation {spread:.4g}"
            rows.append((name, values[key], how.format(**values) + deviation))
    return rows
