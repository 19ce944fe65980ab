"""The console command: ``mixgan SUBCOMMAND --help`` shows the flags of each subcommand."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from mixgan.engine.command import run_command

#: Subcommand -> module (its function main(argv), or the one named), and what it does.
COMMANDS = {
    "train-gan": ("mixgan.gan.__main__", "Train MixCycleGAN, or plain CycleGAN, on images of two domains"),
    "classify": ("classify.__main__", "Train a classifier with a mixing method"),
    "dcgan": ("mixgan.gan.__main__:dcgan", "Train DCGAN with mixed real and generated images"),
    "fid": ("mixgan.evaluate.command", "Compare generated images with real ones: Frechet distance and more"),
    "translate": ("mixgan.gan.translate", "Translate a folder of images with a trained generator"),
    "export": ("mixgan.gan.export", "Write trained networks for other programs: pth, Hugging Face hub, ONNX"),
    "push": ("mixgan.gan.export:push", "Upload an exported folder to the Hugging Face hub"),
    "compare": ("mixgan.report.compare", "Train variants with several seeds and compare them in a table"),
    "analyze": ("classify.analysis.command", "Draw the papers' figures of trained classifiers"),
    "toy-gan": ("mixgan.gan.toy", "Compare small GANs on two-dimensional points, with and without mixing"),
    "gallery": ("mixgan.report.gallery", "Draw what the mixing methods do to two images"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a subcommand; without one, list them.

    Args:
        argv: the words after ``mixgan``; default: the process's own.
    """
    run_command(dispatch, argv)


def dispatch(argv: Sequence[str]) -> None:
    """Import the module of the subcommand and run it; ValueError for an unknown one."""
    name, words = (argv[0], argv[1:]) if argv else ("--help", [])
    if name in ("-h", "--help"):
        print("usage: mixgan SUBCOMMAND [options]\n")
        for known, (_, text) in COMMANDS.items():
            print(f"  {known:12s}{text}")
        print("\nmixgan SUBCOMMAND --help shows its options.")
        return
    if name == "--version":
        print(f"mixgan {import_module('mixgan').__version__}")
        return
    if name not in COMMANDS:
        raise ValueError(f"unknown subcommand {name!r}; known: {', '.join(COMMANDS)}")
    module, _, function = COMMANDS[name][0].partition(":")
    command: Callable[..., None] = getattr(import_module(module), function or "main")
    if name == "fid":
        features = lambda path: import_module("classify.weights").checkpoint_features(path)  # noqa: E731
        command = partial(command, readers=import_module(module).Readers(checkpoint=features, run=trained_run))
    if name == "export":
        command = partial(command, export_classifier=lambda *of: import_module("classify.weights").export(*of))
    command(words)


def trained_run(path: Path, direction: str, count: int | None) -> Any:
    """A run of a GAN as generated images for fid: translations ``direction`` of MixCycleGAN, or ``count`` images of DCGAN."""
    if import_module("mixgan.engine.config").read_config(path)["recipe"] == "dcgan":
        return import_module("mixgan.gan.dcgan").TrainedDcgan(path, count)
    if count is not None:
        raise ValueError(
            f"--count {count} is for runs of dcgan, but {path} is another run, which translates its test set"
        )
    return import_module("mixgan.gan.evaluation").TrainedRun(path, direction)


if __name__ == "__main__":
    main(sys.argv[1:])
