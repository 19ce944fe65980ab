"""Two ways in which GAN training goes wrong, each said in one line when it is first seen: collapse and saturation."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

#: Generated images count as collapsed below this share of the real ones' pairwise distance.
COLLAPSED = 0.1
#: A discriminator is saturated when its loss stays below this for that many steps.
LOW_LOSS = 0.01
LONG = 200


def collapse_warnings(figures: Mapping[str, Any]) -> list[str]:
    """One sentence for each generator whose images of the test set are nearly all the same."""
    texts = []
    for way, name in (("AtoB", "G_A"), ("BtoA", "G_B")):
        made, real = figures[f"diversity_{way}"], figures[f"diversity_real_{way}"]
        if made < COLLAPSED * real:
            texts.append(
                f"{name} has collapsed: its images differ by {made:.1f} of 255 on average, real ones by {real:.1f}; "
                "a lower --lr or another --seed may help"
            )
    return texts


class Health:
    """Watches a run and tells each trouble once.

    Args:
        say: takes a line for the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._low_since: dict[str, int] = {}
        self._told: set[str] = set()

    def after_evaluation(self, figures: Mapping[str, Any]) -> None:
        """Looks for collapse."""
        for text in collapse_warnings(figures):
            self._tell(text.partition(":")[0], text)

    def after_log(self, step: int, losses: Mapping[str, Tensor]) -> None:
        """Looks for saturation. Reads D_A and D_B from the device, so call it where the log has just done so anyway."""
        names = ("D_A", "D_B")
        for name, loss in zip(names, torch.stack([losses[name] for name in names]).tolist(), strict=True):
            if loss >= LOW_LOSS:
                self._low_since.pop(name, None)
            elif step - self._low_since.setdefault(name, step) >= LONG:
                self._tell(
                    name,
                    f"{name} is saturated: its loss has stayed below {LOW_LOSS} since step {self._low_since[name]}, so its "
                    "generator learns little from it; a lower --lr may help",
                )

    def _tell(self, trouble: str, text: str) -> None:
        if trouble not in self._told:
            self._told.add(trouble)
            self._say(f"warning: {text}")
