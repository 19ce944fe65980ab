"""The embedded network: a small classifier of the embedded tiles that is also the feature network shipped with mixgan."""

from pathlib import Path

import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# The shipped weights were trained on (images - MEAN) / STD in every channel, that is on images*2-1 for images in 0..1.
EMBEDDED_MEAN = 0.5
EMBEDDED_STD = 0.5
EMBEDDED_DIMS = 64
EMBEDDED_WEIGHTS = Path(__file__).with_name("embedded.safetensors")


class EmbeddedNetwork(nn.Module):
    """Four convolution stages and global average pooling; 61,418 parameters with the defaults.

    Fully convolutional: any size from 28 px works. It follows the network contract of `classify`: ``stages``,
    ``embedding``, ``classifier``.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        self.body = nn.ModuleList(
            [
                _stage(in_channels, 16, stride=1),
                _stage(16, 32, stride=2),
                _stage(32, 64, stride=2),
                _stage(64, EMBEDDED_DIMS, stride=2),
            ]
        )
        self.classifier = nn.Linear(EMBEDDED_DIMS, num_classes)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Normalised images (B,C,H,W) -> feature maps of 16, 32, 64 and 64 channels at 1, 1/2, 1/4 and 1/8 of the size."""
        maps = []
        for stage in self.body:
            x = stage(x)
            maps.append(x)
        return maps

    def embedding(self, x: Tensor) -> Tensor:
        """Normalised images (B,C,H,W) -> (B,64), non-negative, what the classifier sees."""
        return F.adaptive_avg_pool2d(self.stages(x)[-1], 1).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B,C,H,W) -> logits (B,num_classes)."""
        return self.classifier(self.embedding(x))


def _stage(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def load_embedded(path: Path | None = None) -> EmbeddedNetwork:
    """The embedded network with trained weights, in eval mode on the CPU.

    Args:
        path: a .safetensors file of an ``EmbeddedNetwork()``; the shipped one by default.

    Raises:
        ValueError: if the file is missing, is no safetensors file, or holds another network.
    """
    path = EMBEDDED_WEIGHTS if path is None else Path(path)
    if not path.is_file():
        raise ValueError(f"the weights of the embedded feature network are missing: no file {path}")
    network = EmbeddedNetwork()
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold the weights of the embedded feature network: {error}") from error
    return network.eval()
