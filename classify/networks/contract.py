"""What every classifier network offers, so that methods and analyses never ask which one it is."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Network(Protocol):
    """The network contract: any ``nn.Module`` with these members, whatever it inherits from.

    ``classifier(embedding(x))`` are the logits, and calling the network does exactly that.
    """

    classifier: nn.Linear

    def stages(self, x: Tensor) -> list[Tensor]:
        """Feature maps after each stage, finest first: [(B,C1,H1,W1), (B,C2,H2,W2), ...]. The stem is no stage."""

    def embedding(self, x: Tensor) -> Tensor:
        """What the classifier sees: (B,D) with D = ``classifier.in_features``."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits (B,K) of normalised images (B,C,H,W)."""


class PooledNetwork(nn.Module):
    """Base of the networks whose embedding is the spatial mean of their last stage: stages and classifier are theirs."""

    classifier: nn.Linear

    def stages(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError(f"{type(self).__name__} does not define stages()")

    def embedding(self, x: Tensor) -> Tensor:
        return self.stages(x)[-1].mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embedding(x))
