"""The flags of the evaluation command."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class FidOptions:
    """Compare generated images with real ones: Frechet and kernel distance, precision and recall, density and coverage,
    Inception Score, and paired figures where file names match."""

    real: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="REAL")]
    """Folder of real images, folders in it included, or an .npz file of statistics as pytorch-fid writes it."""
    fake: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FAKE")]
    """Folder of generated images, or an .npz file."""
    features: str = "auto"
    """auto, inception, embedded, or a checkpoint of the classify command; auto takes inception if its weights are here."""
    inception_weights: Path | None = None
    """Where the weights of Inception are, if not in torch's hub cache."""
    dims: Literal[2048, 768, 192, 64] = 2048
    """Which features of Inception; published FID has 2048."""
    fast: bool = False
    """Compute Inception in bfloat16: faster, and no published FID any more."""
    resize: str = "auto"
    """Side in px that all images are resized to first, or none; auto: none, but with --domain the generated images' size."""
    domain: Literal["A", "B"] | None = None
    """REAL holds side-by-side pairs of Google Maps: compare with their photos (A) or maps (B)."""
    json: Path | None = None
    """File for the figures."""
    html: Path | None = None
    """File for the page."""
    save_statistics: Path | None = None
    """.npz file for the statistics of REAL, for this command and for pytorch-fid."""
    batch_size: int = 50
    """Images per batch."""
    sample: int = 5000
    """How many features of each set are kept for what needs them: all but the Frechet distance."""
    bootstrap: int = 50
    """Replicates behind the interval of the Frechet distance; 0 for none."""
    seed: int = 0
    """Seed of samples and draws."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about a file that cannot be read."""
    cache: Path | None = None
    """Folder where features of REAL are kept between calls (default: ~/.cache/mixgan/statistics)."""
    use_cache: bool = True
    """Keep the features of REAL there, and take them from there if nothing has changed."""
    threads: int = 0
    """CPU threads (default: all cores, shared by the processes of this machine)."""

    def check(self) -> None:
        """ValueError for values out of range and for files that could not be written in the end."""
        if self.resize not in ("auto", "none") and not (self.resize.isdigit() and int(self.resize) > 0):
            raise ValueError(f"--resize must be auto, none or a number of pixels, got {self.resize}")
        for name in ("batch_size", "sample"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.bootstrap < 0 or self.bootstrap == 1:
            raise ValueError(f"--bootstrap must be 0 or at least 2, got {self.bootstrap}")
        for name in ("seed", "threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must not be negative, got {getattr(self, name)}")
        for name in ("json", "html", "save_statistics"):
            _check_writable(f"--{name.replace('_', '-')}", getattr(self, name))
        if self.save_statistics and self.save_statistics.suffix != ".npz":
            raise ValueError(f"--save-statistics must end in .npz, got {self.save_statistics}")


def _check_writable(flag: str, path: Path | None) -> None:
    """After an hour of work is too late."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise ValueError(f"the folder of {flag} {path} does not exist")
    if path.is_dir():
        raise ValueError(f"{flag} must name a file, but {path} is a folder")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"the folder of {flag} {path} cannot be written to")
