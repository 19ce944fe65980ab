"""Mixing at a layer that is drawn anew in every step: the input or hidden features of any network."""

import torch
from torch import Tensor, nn

from classify.methods.hidden_layers import HiddenLayers, replaced_output
from classify.methods.mix_schedule import MixSchedule
from classify.methods.mixed_samples import MixedSamples
from classify.methods.soft_targets import SoftLoss
from mixgan.mixing import Mixer, Plan


class HiddenMixing(MixedSamples):
    """Base of the methods that mix a batch at one of several layers: the input, or the output of a module.

    Everything up to that layer sees unmixed samples; the labels are mixed by the same plan. The network stays as it is: the
    layer's output is replaced by a hook for one forward pass.

    Args:
        network: any classifier.
        input_mixer: mixes the images where the input is drawn.
        hidden_mixer: mixes features (B,C,h,w). Features of another shape (B,...) count as channels of 1 x 1 pixels.
        layers: see ``HiddenLayers``; each is as likely as the others.
        schedule, mean, std, loss: as in ``MixedSamples``.
    """

    def __init__(
        self,
        network: nn.Module,
        input_mixer: Mixer,
        hidden_mixer: Mixer,
        *,
        layers: tuple[str, ...],
        schedule: MixSchedule | None = None,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        loss: SoftLoss,
    ) -> None:
        super().__init__(network, input_mixer, schedule=schedule, mean=mean, std=std, loss=loss)
        self.hidden_mixer = hidden_mixer
        self.layers = HiddenLayers(network, layers)

    def classify(
        self, mixer: Mixer, images: Tensor, labels: Tensor, saliency: Tensor | None
    ) -> tuple[Tensor, Tensor, Plan]:
        """Logits (B,K) float32 of a batch mixed at a random layer, the targets (B,K), and the plan that mixed it."""
        module = self.drawn_layer(images) if mixer is self.mixer else None
        if module is None:
            return super().classify(mixer, images, labels, saliency)
        return self.classify_hidden(module, images, labels)

    @torch.compiler.disable
    def classify_hidden(self, module: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Plan]:
        """The same for a batch mixed at the output of a module."""
        plans: list[Plan] = []

        def mix(features: Tensor) -> Tensor:
            if len(features) != len(images):
                raise ValueError(
                    f"--method.layers must name modules that keep the batch apart: {type(module).__name__} made "
                    f"{tuple(features.shape)} of {len(images)} images"
                )
            maps = features if features.ndim == 4 else features.flatten(1)[:, :, None, None]
            plans.append(self.hidden_mixer.plan(maps))
            return self.hidden_mixer.apply(maps, plans[0]).view_as(features)

        with replaced_output(module, mix):
            logits = self.network(images).float()
        return logits, self.hidden_mixer.targets(labels, plans[0]), plans[0]

    def drawn_layer(self, images: Tensor) -> nn.Module | None:
        """This step's layer; None for the input."""
        names = self.layers.names
        return self.layers.module(names[self.host.draw([1.0] * len(names))], images)

    def pictures(self, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> dict[str, Tensor]:
        """What is done to images where the input is drawn; hidden features make no picture."""
        if {"0", "input"}.isdisjoint(self.layers.names):
            return {"own": self.normalise.undo(images)}
        return super().pictures(images, labels, generator=generator)
