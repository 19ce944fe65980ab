"""The training step of mixup as its published loop has it: float32, images augmented one by one on the CPU, one lambda a batch.

Written from the formulation (Zhang et al. 2017): SGD with momentum 0.9 and weight decay 1e-4, the loss as the lambda-weighted sum
of two cross-entropies, loss and accuracy read back in every step.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Beta
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2


class OneByOne(Dataset):
    """uint8 images (N,C,H,W) that are cropped, mirrored and normalised one at a time when they are asked for."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = [v2.functional.to_pil_image(image) for image in images], labels.tolist()
        size = images.shape[-1]
        steps = [
            v2.RandomCrop(size, padding=4),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
        self.transform = v2.Compose([*steps, v2.Normalize((0.5,) * 3, (0.25,) * 3)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def mixup_step(
    network: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int, workers: int, device: torch.device
) -> Callable[[], tuple[float, float]]:
    """A function that trains the network on the next batch and returns loss and accuracy.

    Args:
        images: (N,3,S,S) uint8, and labels (N,) int64, on the CPU.
        workers: processes that augment; 0: this one.
    """
    network = network.to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(
        OneByOne(images, labels),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    batches = endless(loader)

    def step() -> tuple[float, float]:
        own, own_labels = (tensor.to(device) for tensor in next(batches))
        lam = Beta(1.0, 1.0).sample().item()
        order = torch.randperm(len(own), device=device)
        logits = network(lam * own + (1 - lam) * own[order])
        labels_of = own_labels, own_labels[order]
        own_loss, other_loss = (F.cross_entropy(logits, one) for one in labels_of)
        loss = lam * own_loss + (1 - lam) * other_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        own_right, other_right = ((logits.argmax(1) == one).sum().item() for one in labels_of)
        return loss.item(), (lam * own_right + (1 - lam) * other_right) / len(own)

    return step


def endless(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from loader
