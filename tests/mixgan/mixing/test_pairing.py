"""SamplePairing: (x_i + x_j) / 2 with the label of x_i."""

import torch

from mixgan.mixing import build_mixer


def test_images_are_averaged_and_the_label_is_the_own():
    images, labels = torch.rand(5, 3, 6, 6), torch.tensor([0, 1, 2, 1, 0])
    mixed = build_mixer("samplepairing", num_classes=3).mix(images, labels)
    torch.testing.assert_close(mixed.images, (images + images[mixed.partner]) / 2)
    assert torch.equal(mixed.targets, torch.eye(3)[labels])


def test_a_given_lambda_weighs_the_images_only():
    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    others = torch.rand(2, 1, 2, 2)
    mixed = build_mixer("samplepairing", num_classes=2).mix(
        images, labels, others=others, other_labels=1 - labels, lam=torch.tensor([0.25, 1.0])
    )
    torch.testing.assert_close(mixed.images[0], 0.25 * images[0] + 0.75 * others[0])
    assert torch.equal(mixed.images[1], images[1])
    assert torch.equal(mixed.targets, torch.eye(2)[labels])
