"""The training commands of GANs: ``mixgan train-gan`` (also ``python -m mixgan.gan``) and ``mixgan dcgan``."""

from collections.abc import Sequence

from mixgan.engine.command import run_command
from mixgan.gan import config

# --help and errors in the flags import nothing that only training needs.


def main(argv: Sequence[str]) -> None:
    """Train MixCycleGAN as the command line says."""
    settings = config.settings_from(argv)
    from mixgan.gan.train import train

    train(settings)


def dcgan(argv: Sequence[str]) -> None:
    """Train DCGAN as the command line says."""
    settings = config.dcgan_settings_from(argv)
    from mixgan.gan.dcgan import train

    train(settings)


if __name__ == "__main__":
    run_command(main)
