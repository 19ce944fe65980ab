"""The MixCycleGAN command: ``mixgan train-gan``, ``python -m mixgan.gan``, recipes/mixcyclegan_maps.py."""

from collections.abc import Sequence

from mixgan.engine.config import run_command


def main(argv: Sequence[str]) -> None:
    """Run the command; --help and errors in the flags do not import what only training needs."""
    from mixgan.gan.config import settings_from

    settings = settings_from(argv)
    from mixgan.gan.train import train

    train(settings)


if __name__ == "__main__":
    run_command(main)
