"""What makes the whole suite fast: the order of the tests, no garbage collection of what is imported, no waiting for the disk."""

import gc
import os

import pytest

#: Take long, as do the tests that start commands as forks.
LONG = ("test_campaign.py", "test_examples.py")


def pytest_configure() -> None:
    # A run flushes some fifty files, which no test can see but those that replace this function or start another process.
    os.fsync = lambda descriptor: None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, or one process of ``make test`` would begin one when the others have nothing left.

    xdist gives each process one stretch of the list: the forks of the first ones have one server for all.
    """

    def is_short(item: pytest.Item) -> bool:
        forks = item.path.parent.name == "recipes" or hasattr(item.module, "forked")
        return not (forks or item.path.name in LONG)

    items.sort(key=is_short)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_unconfigure() -> None:
    gc.unfreeze()  # else triton's bindings, which are not taken apart, fill the screen with what they call leaks
