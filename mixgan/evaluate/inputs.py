"""What the evaluation command is given: two folders or statistics files, how they are made comparable, and the traps in them."""

from dataclasses import replace
from pathlib import Path

from mixgan.evaluate.feature_set import FeatureSet
from mixgan.evaluate.features import FeatureExtractor
from mixgan.evaluate.options import FidOptions
from mixgan.evaluate.preprocessing import Preprocessing
from mixgan.evaluate.sources import FolderSource, folder_source
from mixgan.evaluate.statistics_file import read_made_with, read_statistics


def open_sources(options: FidOptions) -> tuple[FolderSource | None, FolderSource | None]:
    """Both folders with what is done to their pictures; None for a statistics file.

    Raises:
        ValueError: a folder that is missing or holds fewer than two images, or flags that do not go with a statistics file.
    """
    for flag, given in (("--domain", options.domain), ("--save-statistics", options.save_statistics)):
        if given and is_statistics(options.real):
            raise ValueError(f"{flag} needs the images of REAL, but {options.real} is a statistics file")
    fake = None if is_statistics(options.fake) else _folder(options, options.fake, Preprocessing())
    size = None if options.resize in ("auto", "none") else int(options.resize)
    if options.resize == "auto" and options.domain:
        size = _common_size(options.fake, fake)
    if fake:
        fake = replace(fake, preprocessing=Preprocessing(size))
    if is_statistics(options.real):
        return None, fake
    return _folder(options, options.real, Preprocessing(size, options.domain)), fake


def is_statistics(path: Path) -> bool:
    """Whether a path is meant as a statistics file and not as a folder."""
    return path.suffix == ".npz" and not path.is_dir()


def known_set(path: Path, extractor: FeatureExtractor) -> FeatureSet:
    """What a statistics file says of a set; ValueError if it was made with other features."""
    made_with = read_made_with(path)
    if made_with.features and made_with.features != extractor.name:
        raise ValueError(
            f"{path} holds statistics of {made_with.features} features, but these are {extractor.name} features; "
            "choose the features that it was made with (--features, --dims), or make it anew"
        )
    statistics = read_statistics(path, dims=extractor.dims)
    told = [] if made_with.features else [f"{path} does not say with which features it was made"]
    if made_with.weights_sha256 not in (None, extractor.weights_sha256):
        told.append(f"{path} was made with other weights of the {extractor.name} network")
    return FeatureSet(statistics, warnings=tuple(told))


def preprocessing_text(options: FidOptions, real: FolderSource | None, fake: FolderSource | None) -> str:
    """What happened to the images before the network: one text for both sets, or one for each."""
    texts = [
        _treatment(path, source) or f"prepared in a way that {path} does not tell"
        for path, source in ((options.real, real), (options.fake, fake))
    ]
    return f"images {texts[0]}" if texts[0] == texts[1] else f"real images {texts[0]}; generated images {texts[1]}"


def other_warnings(
    options: FidOptions, real: FolderSource | None, fake: FolderSource | None, extractor: FeatureExtractor
) -> list[str]:
    """The traps: real images larger than generated ones, sets that were prepared differently, flags without effect."""
    told = []
    if extractor.name.endswith("-bf16"):
        told.append("computed in bfloat16 (--fast): not comparable with published FID, use it to compare your own runs")
    if not extractor.name.startswith("inception") and (options.fast or options.dims != 2048):
        told.append(f"--fast and --dims are for Inception, they change nothing about {extractor.name} features")
    if real and fake and not real.preprocessing.size:
        told += _larger(real, fake)
    if not (real and fake):
        told += _prepared_differently(options, real, fake)
    return told


def _folder(options: FidOptions, path: Path, preprocessing: Preprocessing) -> FolderSource:
    source = folder_source(path, preprocessing=preprocessing, on_bad_image=options.on_bad_image)
    if source.count < 2:
        raise ValueError(f"a Frechet distance needs at least 2 images of each set, {path} holds {source.count}")
    return source


def _common_size(path: Path, fake: FolderSource | None) -> int:
    if fake is None:
        raise ValueError(f"{path} does not tell the size of its images: with --domain give --resize N or --resize none")
    sizes = fake.sizes()
    if len(sizes) != 1 or len(set(next(iter(sizes)))) != 1:
        shown = ", ".join(f"{width} x {height}" for width, height in list(sizes)[:3])
        raise ValueError(
            f"{fake.name} holds images of {shown}, not of one square size: give --resize N or --resize none"
        )
    return next(iter(sizes))[0]


def _larger(real: FolderSource, fake: FolderSource) -> list[str]:
    """The classic trap: 256 px generated from 600 px originals."""
    largest = [max(source.sizes(), key=lambda size: size[0] * size[1], default=(0, 0)) for source in (real, fake)]
    (real_width, real_height), (width, height) = largest
    if real_width * real_height <= width * height:
        return []
    return [
        f"real images of {real_width} x {real_height} px against generated ones of {width} x {height} px: "
        f"sharpness alone makes a distance; --resize {width} brings both to one size"
    ]


def _prepared_differently(options: FidOptions, real: FolderSource | None, fake: FolderSource | None) -> list[str]:
    known = [_treatment(options.real, real), _treatment(options.fake, fake)]
    if None in known:
        return []
    first, second = (text.rsplit(", then ", 1)[-1] for text in known)  # without the cutting of side-by-side pairs
    return [] if first == second else ["the sets were prepared differently, and the distance is of that, too"]


def _treatment(path: Path, source: FolderSource | None) -> str | None:
    """What happened to the images of one set, to go on after "images"; None where a statistics file does not tell."""
    return source.preprocessing.text() if source else read_made_with(path).preprocessing
