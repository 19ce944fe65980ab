"""What soft training targets look like over an epoch: their largest values and the distribution of all values."""

import math
from typing import Any

import torch
from torch import Tensor, nn

TOP = 5
BINS = 50
QUANTITIES = ("soft_targets", "global_labels")
KINDS = ("original", "mixed")


class SoftTargetRecord(nn.Module):
    """Sums over the batches of an epoch, kept on the device until the epoch's means are asked for (LaMix Figs. 2 and 3).

    All of it is buffers, so that a resumed run goes on counting. With several processes these are, as for batch norm, the main
    process's: the record is of its share of the images.

    Args:
        num_classes: K, the width of the targets.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.top = min(TOP, num_classes)
        #: upper end of each quantity's histogram; a global label is largest where one class has sigmoid 1 and all others 0
        self.ends = dict(zip(QUANTITIES, (1.0, math.e / (math.e + num_classes - 1)), strict=True))
        self.register_buffer("sums", torch.zeros(len(QUANTITIES), len(KINDS), self.top + BINS))
        self.register_buffer("batches", torch.zeros(len(KINDS)))

    @torch.no_grad()
    def add(self, soft_targets: Tensor, global_labels: Tensor, *, mixed: bool) -> None:
        """Count one batch: both (B,K) float32 with rows that sum to 1."""
        kind = int(mixed)
        values = (soft_targets, global_labels)
        self.sums[:, kind] += torch.stack(
            [self._figures(rows, end) for rows, end in zip(values, self.ends.values(), strict=True)]
        )
        self.batches[kind] += 1

    def clear(self) -> None:
        """Begin another epoch."""
        self.sums.zero_()
        self.batches.zero_()

    def means(self) -> dict[str, Any]:
        """``soft_targets`` and ``global_labels`` (both as JSON values), each with

        - ``range``: [low, high], the ends of its histograms;
        - ``original`` and ``mixed``, where the epoch had such batches: ``top5`` = mean largest, second ... value of a row, and
          ``histogram`` = share of all values in each of 50 equal bins over the range.
        """
        means = (self.sums / self.batches.clamp(min=1)[:, None]).tolist()
        batches = self.batches.tolist()
        return {
            name: {
                "range": [0.0, round(self.ends[name], 6)],
                **{
                    kind: {"top5": _rounded(row[: self.top]), "histogram": _rounded(row[self.top :])}
                    for kind, row, count in zip(KINDS, rows, batches, strict=True)
                    if count
                },
            }
            for name, rows in zip(QUANTITIES, means, strict=True)
        }

    def _figures(self, rows: Tensor, end: float) -> Tensor:
        """(top + BINS,): mean of each of the largest values of the rows, then the shares of all values by bin."""
        largest = rows.topk(self.top, dim=1).values.mean(0)
        # histc drops what lies outside, and the softmax may round a little past the end
        return torch.cat((largest, torch.histc(rows.clamp(max=end), BINS, 0.0, end) / rows.numel()))


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 6) for value in values]
