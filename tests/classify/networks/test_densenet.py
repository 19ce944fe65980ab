"""DenseNets: the saving of memory changes nothing else; test_networks.py compares DenseNet-121 with torchvision's."""

import copy

import pytest
import torch
from torch import Tensor, nn

from classify.networks.densenet import DenseNet


def pair() -> tuple[DenseNet, DenseNet]:
    """The same small network twice, plain and saving memory."""
    torch.manual_seed(0)
    plain = DenseNet(4, (3, 8, 2), num_classes=3)
    saving = DenseNet(4, (3, 8, 2), num_classes=3, save_memory=True)
    saving.load_state_dict(plain.state_dict())
    return plain, saving


def images() -> Tensor:
    return torch.randn(4, 3, 16, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_saving_memory_changes_neither_results_nor_gradients_nor_statistics(training: bool, autocast: bool):
    """Oracle: the plain network. A recomputation that counted a batch twice would show in the running statistics."""
    networks = pair()
    for network in networks:
        network.train(training)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                logits = network(images())
            logits.float().square().sum().backward()
    plain, saving = networks
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[key], value, rtol=0, atol=0)
    gradients = dict(saving.named_parameters())
    for key, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[key].grad, parameter.grad, rtol=0, atol=0)


def test_saving_memory_keeps_less_for_the_backward_pass():
    def kept(network: nn.Module) -> int:
        """Values of activations that autograd keeps, each tensor once."""
        sizes: dict[int, int] = {}
        own = {parameter.data_ptr() for parameter in network.parameters()}

        def note(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in own:
                sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network(images())
        return sum(sizes.values())

    plain, saving = (DenseNet(4, (20,), num_classes=3, save_memory=save) for save in (False, True))
    assert kept(saving) < 0.4 * kept(plain)


def test_no_convolution_runs_twice():
    _, network = pair()
    runs: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: runs.append(module))
    network(images()).sum().backward()
    assert len(runs) == len(set(runs)) == 1 + 2 * 13 + 2


def test_saving_memory_survives_a_copy_and_a_compiler():
    torch.manual_seed(0)
    network = DenseNet(2, (2,), num_classes=3, save_memory=True)
    compiled = torch.compile(copy.deepcopy(network), backend="eager", fullgraph=True)
    for one in (network, compiled):
        one(images()).square().sum().backward()
    torch.testing.assert_close(compiled.features.conv0.weight.grad, network.features.conv0.weight.grad)


def test_stem_is_checked():
    with pytest.raises(ValueError, match="got 'small'"):
        DenseNet(4, (2, 2), num_classes=3, stem="small")
