"""Bad flags: derived from the fields of every command's settings and the options of methods and figures, and pairs by hand."""

import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from setups import TRAINING, Case, Result, judged, pictures, spread, trained
from zygote import run

from classify.analysis import FIGURES
from classify.analysis import options_of as figure_options
from classify.analysis.command import AnalyzeOptions
from classify.config import ClassifySettings, options_of
from classify.methods import list_methods
from mixgan.engine.annotations import Positional, Range, core, flag_of
from mixgan.engine.config import Settings, renamed_of
from mixgan.evaluate.command import FidOptions
from mixgan.gan.config import DcganSettings, GanSettings
from mixgan.gan.translate import TranslateOptions
from mixgan.report.compare import CompareOptions
from mixgan.report.gallery import GalleryOptions


class Bad(NamedTuple):
    """Words after a command's good ones; the sentence must have one of ``names``."""

    words: tuple[str, ...]
    names: tuple[str, ...]


#: Command -> its settings, and good words; {work} has pictures and trained runs.
COMMANDS: dict[str, tuple[type[Settings], str]] = {
    "train-gan": (GanSettings, f"{TRAINING['train-gan']} --dry-run"),
    "dcgan": (DcganSettings, f"{TRAINING['dcgan']} --dry-run"),
    "classify": (ClassifySettings, f"{TRAINING['classify']} --dry-run"),
    "fid": (
        FidOptions,
        "fid {work}/pictures {work}/pictures --features bundled --threads 1 --bootstrap 0 --no-use-cache",
    ),
    "translate": (TranslateOptions, "translate {work}/trained-train-gan {work}/pictures out --threads 1"),
    "analyze": (AnalyzeOptions, "analyze {work}/trained-classify --figures calibration --output-dir out --threads 1"),
    "compare": (CompareOptions, "compare --recipe classify --variants erm --dry-run --dataset tiles"),
    "gallery": (GalleryOptions, "gallery --output out.png --methods mixup"),
}
#: Fields whose value is not used by the good words, or for which every text is right.
UNUSED = {
    ("train-gan", "data_root"), ("dcgan", "data_root"), ("classify", "data_root"), ("analyze", "data_root"),
    ("analyze", "output_dir"),
    ("train-gan", "feature_weights"), ("dcgan", "feature_weights"), ("fid", "feature_weights"), ("fid", "cache"),
    ("train-gan", "output_dir"), ("dcgan", "output_dir"), ("classify", "output_dir"), ("compare", "output_dir"),
    ("gallery", "output"), ("translate", "output"),  # any text is a name; unusable ones are among the pairs
}  # fmt: skip
#: Words that do not go together, or not here, by command; after a | what the sentence must have one of.
PAIRS = {
    "train-gan": """--gan-loss hinge --mixing consistency | --gan-loss
        --d-alpha 0.5 | --d-alpha
        --mixed-precision fp16 | --mixed-precision
        --mixed-precision fp16 --accumulation-steps 2 | --mixed-precision
        --features inception | --features
        --image-size 33 | --image-size
        --image-size 2000 | --image-size tiles
        --dataset maps --data-root /dev/null/x | /dev/null/x
        --dataset maps --data-root {work}/pictures | pictures
        --accumulation-steps 999 | --accumulation-steps
        --batch-size 999 | batch""",
    "dcgan": """--mixed-precision fp16 | --mixed-precision
        --dataset cifar10 --data-root /dev/null/x | /dev/null/x cifar10
        --dataset fashion-mnist --data-root {work}/pictures | pictures
        --image-size 48 | --image-size
        --batch-size 999 | batch
        --features inception | --features""",
    "classify": """--init-from {work}/trained-classify --finetune-from {work}/trained-classify | --init-from
        --mix-off-epoch 1 --mix-off-last 1 | --mix-off-epoch
        --mix-off-last 3 | --mix-off-last
        --min-lr 0.2 | --min-lr
        --side-min-lr 0.2 | --side-min-lr
        --schedule steps --min-lr 0.01 | --min-lr
        --schedule steps --lr-drops 2 | --lr-drops
        --schedule steps --lr-drops -0.5 | --lr-drops
        --schedule steps --lr-drops nan | --lr-drops
        --mix-epochs 0/0 | --mix-epochs
        --mix-epochs 3/2 | --mix-epochs
        --mix-epochs -1/2 | --mix-epochs
        --dataset imagefolder --data-root /dev/null/x --no-nesterov | train-count /dev/null/x
        --finetune-from {work}/trained-train-gan | trained-train-gan
        --finetune-from {work}/trained-classify --network resnet18 | --network
        --init-from {work}/trained-classify --network resnet18 | --init-from trained-classify
        --init-from {work}/pictures | pictures
        --method automix+mixup | automix
        --method mixup+mixup | mixup
        --method mixup+ | --method
        --method + | --method
        --method erm --mixer.alpha 1 | --mixer.alpha
        --method mixup+cutmix --mixer.fmix.alpha 1 | --mixer.fmix
        --mixed-precision fp16 | --mixed-precision
        --tiles-view map --dataset cifar10 | --tiles-view
        --batch-size 999 | batch
        --network timm:nope | timm:nope""",
    "fid": """--resize 0 | --resize
        --resize -5 | --resize
        --resize 99999999 | --resize
        --bootstrap 1 | --bootstrap
        --domain A | --domain --resize
        --json /dev/null/x/x.json | --json
        --json {work} | --json
        --html /proc/x.html | x.html
        --save-statistics x.txt | --save-statistics
        --features inception --feature-weights /dev/null/x | /dev/null/x
        --features inception --feature-weights {work}/pictures/0.png | 0.png
        --features {work}/trained-train-gan | trained-train-gan
        --features {work}/pictures | pictures
        --features {work}/pictures/0.png | 0.png""",
    "translate": """--tile 30 | tile
        --tile 33 | tile
        --tile 64 --overlap 64 | overlap
        --overlap 600 | overlap
        --direction AtoB --direction ItoB | --direction
        --weights step-3 | step-3
        --weights step- | --weights""",
    "analyze": """--figures calibration,nope | --figures
        --figures , | --figures
        --figures calibration --masks.pairs 2 | --masks
        --weights step-99 | step-99""",
    "compare": """--variants erm,erm | erm
        --variants erm[ | erm[
        --variants 'erm[--seed 3]' | --seed
        --variants "erm[--a 'x]" | erm
        --variants , | --variants
        --seeds 1,1 | 1
        --seeds 1.5 | --seeds
        --seeds -1 | --seeds
        --seeds 4294967296 | --seed
        --resume | --output-dir
        --recipe dcgan | --recipe
        --output-dir {work}/trained-classify | trained-classify""",
    "gallery": """--methods mixup, | method
        --methods automix | automix
        --output /dev/null/x/x.png | --output
        --output {work} | --output
        --output x.xyz | --output
        --output x | --output""",
}
#: Whole command lines.
ALONE = """ nope | nope
    --nope | --nope
    train | train
    fid | REAL FAKE real fake
    fid {work}/pictures | FAKE fake
    fid {work}/pictures /dev/null/x | /dev/null/x
    fid /dev/null/x {work}/pictures | /dev/null/x
    fid {work}/pictures {work}/empty | empty
    fid {work}/pictures/0.png {work}/pictures | 0.png
    fid {work}/trained-train-gan {work}/pictures | trained-train-gan
    fid '' {work}/pictures | REAL real
    fid {work}/pictures {work}/pictures {work}/pictures extra | extra
    translate | RUN
    translate {work}/trained-train-gan | INPUT
    translate /dev/null/x {work}/pictures out | /dev/null/x
    translate {work}/empty {work}/pictures out | empty
    translate {work}/pictures {work}/pictures out | pictures
    translate {work}/pictures/0.png {work}/pictures out | 0.png
    translate {work}/trained-classify {work}/pictures out | trained-classify
    translate {work}/trained-dcgan {work}/pictures out | trained-dcgan
    translate {work}/trained-train-gan/config.json {work}/pictures out | config.json
    translate {work}/trained-train-gan/weights/last/D_A.safetensors {work}/pictures out | D_A
    translate {work}/trained-train-gan/weights/last/G_A.safetensors {work}/pictures out --direction BtoA | G_A
    translate {work}/trained-train-gan {work}/empty out | empty
    translate {work}/trained-train-gan {work}/pictures/0.png out | 0.png
    translate {work}/trained-train-gan /dev/null/x out | /dev/null/x
    translate {work}/trained-train-gan {work}/pictures {work}/pictures | pictures
    translate {work}/trained-train-gan {work}/pictures {work}/pictures/0.png | 0.png
    translate {work}/trained-train-gan {work}/pictures /proc/x | /proc/x
    translate hf://user/repo {work}/pictures out | hf:
    analyze | RUN
    analyze /dev/null/x --output-dir out | /dev/null/x
    analyze {work}/empty --output-dir out | empty
    analyze {work}/trained-train-gan --output-dir out | trained-train-gan
    analyze {work}/trained-classify {work}/trained-classify --output-dir out | twice
    analyze {work}/trained-classify --output-dir {work}/pictures | pictures
    analyze {work}/trained-classify --output-dir {work}/pictures/0.png | 0.png
    analyze {work}/trained-classify --output-dir /proc/x/y --figures calibration | /proc/x
    gallery | --output
    compare | --recipe --variants
    compare --recipe classify --variants nope --dry-run --output-dir out | nope
    train-gan --dataset tiles --output-dir {work}/pictures | pictures
    train-gan --dataset tiles --output-dir {work}/pictures/0.png | 0.png
    train-gan --dataset tiles --output-dir {work}/trained-train-gan | trained-train-gan
    train-gan --dataset tiles --output-dir {work}/trained-dcgan --resume | trained-dcgan
    train-gan --dataset tiles --resume | --output-dir
    train-gan --resume --output-dir /dev/null/x | /dev/null/x
    train-gan --resume --dry-run --output-dir {work}/trained-train-gan | --resume
    train-gan --resume --output-dir {work}/trained-train-gan --seed 1 | --seed
    train-gan --resume --output-dir {work}/trained-train-gan --batch-size 1 | --batch-size
    train-gan --resume --output-dir {work}/trained-train-gan --epochs 1 | --epochs
    dcgan --dataset tiles --output-dir /proc/x | /proc/x
    dcgan --dataset tiles --output-dir /dev/null | /dev/null
    dcgan --resume --output-dir {work}/trained-train-gan | trained-train-gan
    classify --dataset tiles --output-dir /dev/null/x | /dev/null
    classify --resume --output-dir {work}/trained-dcgan | trained-dcgan
    classify --resume --output-dir {work}/trained-classify --method cutmix | --method
    classify --resume --output-dir {work}/trained-classify --lr 0.2 | --lr
    classify --resume --output-dir {work}/trained-classify --mixer.alpha 0.3 | --mixer.alpha
    classify --config /dev/null/x | /dev/null/x
    classify --config {work}/pictures | pictures
    classify --config {work}/pictures/0.png | 0.png"""


def cases(work: Path, number: int | None) -> list[Case]:
    """All bad command lines; ``number`` of them."""
    pictures(work / "pictures")
    (work / "empty").mkdir(exist_ok=True)
    for name in ("train-gan", "dcgan", "classify"):
        trained(name, work)
    lines = [
        (f"{good} {shlex.join(bad.words)}", bad.names)
        for command, (_, good) in COMMANDS.items()
        for bad in [*of_fields(command), *by_hand(PAIRS[command])]
    ]
    seen: set[str] = set()  # many methods share options
    lines += [
        (f"{TRAINING['classify'].replace('mixup', method)} --dry-run {shlex.join(bad.words)}", bad.names)
        for method in list_methods()
        for bad in of_options(options_of(method), seen)
    ]
    lines += [
        (f"analyze {{work}}/trained-classify --figures {name} --output-dir out {shlex.join(bad.words)}", bad.names)
        for name, figure in FIGURES.items()
        for bad in of_options({name: figure_options(name)} if figure_options(name) else {}, seen)
        if not figure.trains or bad.words[1] not in wrong(str)  # checked by the runs that it trains
    ]
    lines += [(shlex.join(bad.words), bad.names) for bad in by_hand(ALONE)]
    lines = list({line.format(work=work): names for line, names in lines}.items())
    return [Case(line.replace(f"{work}/", ""), partial(refuse, line, names)) for line, names in spread(lines, number)]


def refuse(line: str, names: Sequence[str], folder: Path) -> Result:
    """The command must refuse the words, and name the flag."""
    return judged(run(shlex.split(line), folder=folder), names=names, refused=True)


def by_hand(table: str) -> Iterator[Bad]:
    """The lines of a table."""
    for line in table.splitlines():
        words, _, names = line.rpartition("|")
        yield Bad(tuple(shlex.split(words)), tuple(names.split()))


def of_fields(command: str) -> Iterator[Bad]:
    """Wrong values, missing values and misspelt names of every flag of a command."""
    settings_type, good = COMMANDS[command]
    flags = {flag_of(name) for name in settings_type.hints()} | set(renamed_of(settings_type))
    yield Bad(("--nope", "1"), ("--nope",))
    for name, hint in get_type_hints(settings_type, include_extras=True).items():
        kind, flag = core(hint), flag_of(name)
        if (
            name not in settings_type.hints()
            or get_origin(kind) is dict
            or any(isinstance(r, Positional) for r in rules(hint))
        ):
            continue
        if flag[:-1] not in flags and len(flag) > 4:
            yield Bad((flag[:-1], "1"), (flag[:-1],))
        if kind is bool:
            yield Bad((f"{flag}=maybe",), (flag,))
            continue
        if get_origin(kind) is not tuple:
            yield Bad((flag,), (flag,))
        if (command, name) not in UNUSED:
            for value in wrong(hint):
                # A good value before it, so that it must be the last one that counts.
                first = shlex.split(good)[shlex.split(good).index(flag) :][:2] if flag in shlex.split(good) else []
                yield Bad((*first, flag, value), (flag, repr(value), value.strip() or flag))


def of_options(groups: dict[str, dict[str, Any]], seen: set[str]) -> Iterator[Bad]:
    """Wrong values of the options of a method or figure, and options that it does not have; those ``seen`` are left out."""
    for prefix, options in groups.items():
        yield Bad((f"--{prefix}.nope", "1"), (f"--{prefix}.nope",))
        for name, option in options.items():
            flag = f"--{prefix}.{name.replace('_', '-')}"
            values = wrong(option.annotation) if f"{flag} {option.annotation}" not in seen else []
            seen.add(f"{flag} {option.annotation}")
            for value in values:
                yield Bad((flag, value), (flag, name.replace("_", "-"), name))


def wrong(hint: Any) -> list[str]:
    """Texts that no value of this annotation is written as."""
    kind = core(hint)
    if get_origin(kind) is tuple:
        kind = core(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return ["nope", "", str(get_args(kind)[0]).upper() + "x"]
    if kind is bool:
        return ["maybe"]
    if kind is int or kind is float:
        texts = ["x", "", "nan", "inf", "-inf", "1e999", "0x10"] + (["1.5", "²"] if kind is int else [])
        return texts + [str(number) for rule in rules(hint) if isinstance(rule, Range) for number in outside(rule)]
    if kind is Path:
        return ["/dev/null/x/file", "x" * 300]
    return ["", "nope", "²", "-1", "caf\udce9"]


def outside(limits: Range) -> list[float]:
    """Numbers just beyond the limits of a range, and far below."""
    found = [] if limits.least is None else [limits.least - 1, -(2**40)]
    found += [] if limits.above is None else [limits.above, -1]
    found += [] if limits.most is None else [limits.most + 1]
    return found + ([] if limits.below is None else [limits.below])


def rules(hint: Any) -> Iterator[Any]:
    """What ``Annotated`` says in an annotation, wherever it is."""
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
    for part in get_args(hint):
        yield from rules(part)
