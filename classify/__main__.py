"""The classify command: ``mixgan classify``, ``python -m classify``, recipes/classify.py."""

from collections.abc import Sequence

from mixgan.engine.command import run_command


def main(argv: Sequence[str]) -> None:
    """Run the command with these arguments; --help and errors in them do not import what only training needs."""
    from classify.config import settings_from

    settings = settings_from(argv)
    if settings.list_methods or settings.list_presets or settings.list_networks:
        from classify.report import print_lists

        print_lists(methods=settings.list_methods, presets=settings.list_presets, networks=settings.list_networks)
    else:
        from classify.train import train

        train(settings)


if __name__ == "__main__":
    run_command(main)
