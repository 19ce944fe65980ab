"""LaMix (Bypassing the Random Input Mixing in Mixup): one averaged input for a pair, many partly learned soft labels."""

import math
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.methods.method import MethodOutput, MixedSamples
from classify.networks.contract import class_head
from mixgan.engine.annotations import Probability
from mixgan.mixing import Mixer, build_mixer
from mixgan.mixing.mixer import Plan
from mixgan.mixing.puzzlemix import PuzzleMix
from mixgan.mixing.sampling import Draws

#: lambda of the local label is uniform in this range.
LABEL_RANGES = {"lambda": (0.0, 1.0), "average": (0.5, 0.5)}
LocalLabel = Literal["lambda", "average"]
#: Largest values and histogram bins in the record of soft targets.
TOP, BINS = 5, 50
QUANTITIES = ("soft_targets", "global_labels")
KINDS = ("original", "mixed")


class Lamix(MixedSamples):
    """Averages two inputs; the target is a local label (their classes) plus a learned global one.

    x = 0.5 x_i + 0.5 x_j (LaMix Eq. 4), target = beta * local + (1 - beta) * softmax(sigmoid(W_t f(x))) (Eq. 9, 10),
    loss = cross-entropy of softmax(W_l f(x)) against it, with a gradient through the target too. Steps alternate: one on
    original samples, whose local label is their own, the next on mixed ones (2.3, 2.4). Tested is W_l f(x), the network itself.

    Args:
        network: the classifier, with ``embedding`` (f) and ``classifier`` (W_l) of the network contract.
        beta: weight of the local label, in [0, 1]; 1 leaves the global label out (table 8).
        local_label: ``"lambda"``: lam y_i + (1-lam) y_j with lam ~ U(0, 1) (Eq. 2, 3.1); ``"average"``: lam = 0.5 (Fig. 1).
        originals: alternate with steps on original samples, which come first; False: mixed ones only (table 7).
        per_batch: one lambda for the batch.
        mixer: makes the mixed samples and their local labels; default: the average of two images.

    Raises:
        ValueError: a network without an embedding.
    """

    source = "LaMix 2.2-2.4"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        mixer: Mixer | None = None,
        beta: Probability = 0.5,
        local_label: LocalLabel = "lambda",
        originals: bool = True,
        per_batch: bool = False,
    ) -> None:
        if mixer is None:
            label_range = LABEL_RANGES[local_label]
            mixer = build_mixer("mixup-l", num_classes=num_classes, label_range=label_range, per_batch=per_batch)
        super().__init__(network, mixer)
        self.beta = beta
        self.originals = originals
        # "the same as the fully-connected layer of the original network" (3.1)
        self.global_layer = class_head(network, num_classes, "lamix")
        self.record = SoftTargetRecord(num_classes)
        self.epoch = 0
        self.mixed_turn = not originals

    def before_step(self, epoch: int, progress: float) -> None:
        """Begin the record of a new epoch."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.record.clear()

    def forward(self, images: Tensor, labels: Tensor) -> MethodOutput:
        """Classify original or mixed samples, compare with the local and global labels together.

        Logs the loss and the accuracy, which is the local label's weight of the predicted class.
        """
        mixer = self.mixer if self.mixed_turn else self.unmixed
        mixed = mixer.mix(images, labels, saliency=self.saliency(mixer, images, labels))
        embedding = self.network.embedding(mixed.images)
        logits = self.network.classifier(embedding).float()
        # At beta = 1 the global label stays in the graph: with several processes W_t must get a gradient, be it 0.
        global_labels = self.global_layer(embedding).float().sigmoid().softmax(1)
        targets = self.beta * mixed.targets + (1.0 - self.beta) * global_labels
        self.record.add(targets, global_labels, mixed=self.mixed_turn)
        return self.output(F.cross_entropy(logits, targets), logits, mixed.targets)

    def after_step(self) -> None:
        """The next step is of the other kind. Counted here, so that accumulated batches are all of one kind."""
        if self.originals:
            self.mixed_turn = not self.mixed_turn

    def epoch_records(self) -> dict[str, Any]:
        """The epoch's soft targets and global labels: top five values and histograms, see ``SoftTargetRecord.means``."""
        return self.record.means()

    def get_extra_state(self) -> Tensor:
        """For a resumed run, (2,) int64: whether the next step is a mixed one, and the epoch that is recorded."""
        return torch.tensor([int(self.mixed_turn), self.epoch])

    def set_extra_state(self, state: Tensor) -> None:
        mixed_turn, self.epoch = state.tolist()
        self.mixed_turn = bool(mixed_turn)


class LamixPuzzle(Lamix):
    """LaMix with PuzzleMix's image at lambda = 0.5 as the one input of a pair.

    LaMix Eq. 5; PuzzleMix's settings are those of the mixer ``puzzlemix``.

    Args:
        beta: weight of the local label, in [0, 1]; the paper's 1 leaves the global label out (3.2).
        local_label, originals, per_batch: as in ``Lamix``.
        transport: whether PuzzleMix moves blocks.
        t_size: side of the moved blocks in px, at most a mask block's; 0 for a mask block's.
        num_classes, mean, std: of the data set, whose normalisation PuzzleMix undoes.
    """

    source = "LaMix 2.2 (Eq. 5), 3.2"

    def __init__(
        self,
        network: nn.Module,
        *,
        num_classes: int,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        beta: Probability = 1.0,
        local_label: LocalLabel = "lambda",
        originals: bool = True,
        per_batch: bool = False,
        transport: bool = True,
        t_size: int = 4,
    ) -> None:
        mixer = HalfPuzzle(
            num_classes=num_classes,
            label_range=LABEL_RANGES[local_label],
            per_batch=per_batch,
            transport=transport,
            t_size=t_size,
            mean=mean,
            std=std,
        )
        super().__init__(
            network,
            num_classes=num_classes,
            mixer=mixer,
            beta=beta,
            local_label=local_label,
            originals=originals,
        )


class HalfPuzzle(PuzzleMix):
    """PuzzleMix's image at lambda = 0.5, whatever the label weight lam ~ U(label_range).

    Args:
        label_range: (low, high) inside [0, 1].
        options: those of ``PuzzleMix``.
    """

    label_follows_mask = False
    source = LamixPuzzle.source

    def __init__(self, *, label_range: tuple[float, float], **options: Any) -> None:
        super().__init__(**options)
        self.label_range = label_range

    def build_plan(self, images: Tensor, saliency: Tensor | None, lam: Tensor | None, draws: Draws) -> Plan:
        """PuzzleMix's plan with other label weights; a given ``lam`` is the label's."""
        lam = draws.uniform(*self.label_range) if lam is None else lam
        plan = super().build_plan(images, saliency, torch.full_like(lam, 0.5), draws)
        return replace(plan, drawn=lam, weights=torch.stack((lam, 1.0 - lam), 1))


class SoftTargetRecord(nn.Module):
    """Largest values and distribution of an epoch's soft targets, summed on the device (LaMix Figs. 2 and 3).

    All sums are buffers, so that a resumed run continues them. With several processes they are, as in batch norm, of the main
    process's share of the images.
    """

    sums: Tensor
    batches: Tensor

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
            [self._statistics(rows, end) for rows, end in zip(values, self.ends.values(), strict=True)]
        )
        self.batches[kind] += 1

    def clear(self) -> None:
        """Reset, for another epoch."""
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

    def _statistics(self, rows: Tensor, end: float) -> Tensor:
        """(top + BINS,): mean of each of the largest values of the rows, then the shares of all values by bin."""
        largest = rows.topk(self.top, dim=1).values.mean(0)
        # clamped: histc ignores values outside, and the softmax may round a little past the end
        return torch.cat((largest, torch.histc(rows.clamp(max=end), BINS, 0.0, end) / rows.numel()))


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 6) for value in values]
