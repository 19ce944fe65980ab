"""Mixers in a plain PyTorch loop: a small network learns synthetic tiles from CutMix batches.

python examples/own_loop.py
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mixgan
from classify import load_dataset


def main(*, epochs: int = 3, train_count: int = 2000) -> float:
    """Train; returns the accuracy on the test set, 0..1."""
    torch.manual_seed(0)
    training, test = (load_dataset("tiles", "data", split=split, size=32) for split in ("train", "test"))
    images = training.images[:train_count].float() / 127.5 - 1
    loader = DataLoader(TensorDataset(images, training.labels[:train_count]), batch_size=64, shuffle=True)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, len(training.classes)),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    mixer = mixgan.build_mixer("cutmix", num_classes=len(training.classes))
    for epoch in range(epochs):
        network.train()
        for batch, labels in loader:
            mixed, targets = mixer(batch, labels)  # soft targets: cross-entropy takes them as they are
            loss = F.cross_entropy(network(mixed), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            right = network(test.images.float() / 127.5 - 1).argmax(1) == test.labels
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test accuracy {right.float().mean():.3f}")
    return right.float().mean().item()


if __name__ == "__main__":
    main()
