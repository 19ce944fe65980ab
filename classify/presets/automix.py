"""How the tables of "Unveiling the Power of Mixup for Stronger Classifiers" (AutoMix) were trained."""

from classify.presets.table import Settings, Table

#: 5.1, CIFAR Datasets.
CIFAR = {
    "epochs": 800,
    "batch_size": 100,
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "min_lr": 0.0,
}
#: 5.1, ImageNet Datasets: random resized crops.
TINY = {**CIFAR, "epochs": 400, "lr": 0.2, "crop": "resized"}
IMAGENET = {**CIFAR, "epochs": 300, "batch_size": 256}
#: 5.2: torchvision's pretrained networks. Weight decay: the authors' configs.
TRANSFER = {
    **CIFAR,
    "epochs": 200,
    "batch_size": 16,
    "lr": 0.001,
    "weight_decay": 5e-4,
    "init_from": "torchvision",
}

#: alpha is 1 unless stated otherwise, "the rest of the hyper-parameters are set the same as the original paper" (5.1). The
#: authors' code (OpenMixup) draws lambda, box and mask once per batch.
ALPHA_1 = {"mixer": {"alpha": 1.0, "per_batch": True}}
METHODS: dict[str, Settings] = {
    "erm": {},
    "mixup": ALPHA_1,
    "cutmix": ALPHA_1,
    "manifold-mixup": {"method_options": {"alpha": 1.0, "per_batch": True}},
    "saliencymix": ALPHA_1,
    "fmix": {"mixer": {"alpha": 1.0, "per_batch": True, "fidelity": "published"}},
    "puzzlemix": ALPHA_1,
    "resizemix": {"mixer": {"per_batch": True, "fidelity": "published"}},
    "automix": {
        "method_options": {
            "alpha": 2.0,
            "layer": 3,
            "momentum": 0.999,
            "momentum_schedule": "published",
            "lam_margin": 0.08,
        }
    },
}

#: What depends on the data: alpha of Manifold Mixup, the share of CutMix's and SaliencyMix's batches, PuzzleMix's clean loss and
#: transport, AutoMix's learning rates.
SMALL_IMAGES: dict[str, Settings] = {
    "cutmix": {"mix_prob": 0.5},
    "saliencymix": {"mix_prob": 0.5},
    "manifold-mixup": {"method_options": {"alpha": 2.0}},
    "automix": {"min_lr": 0.05},
}
PUZZLE_WITH_CLEAN_LOSS = {"mixer": {"t_size": 0}, "method_options": {"clean_weight": 1.0, "reuse_forward": True}}
TINY_IMAGES: dict[str, Settings] = {
    "puzzlemix": PUZZLE_WITH_CLEAN_LOSS,
    "automix": {"min_lr": 0.05, "side_lr": 0.1, "side_min_lr": 0.001},
}
IMAGENET_IMAGES: dict[str, Settings] = {"puzzlemix": PUZZLE_WITH_CLEAN_LOSS, "automix": {"side_min_lr": 0.001}}
TRANSFER_IMAGES: dict[str, Settings] = {
    "puzzlemix": {"mixer": {"t_size": 0}},
    "automix": {"side_lr": 0.01, "side_min_lr": 0.0005},
}
BY_ROW = {
    (dataset, method): settings
    for dataset, methods in {
        "cifar10": SMALL_IMAGES,
        "cifar100": SMALL_IMAGES,
        "tiny-imagenet": TINY_IMAGES,
        "imagenet": IMAGENET_IMAGES,
        "cub-200": TRANSFER_IMAGES,
        "aircraft": TRANSFER_IMAGES,
    }.items()
    for method, settings in methods.items()
}

SMALL_NETWORKS = ("resnet18", "resnext50-32x4d")
LARGE_NETWORKS = ("resnet18-imagenet", "resnext50-32x4d-imagenet")

OPEN = (
    "Results are means of 3 runs, each the median of the last 10 epochs (test_accuracy_last10). From the authors' code "
    "(OpenMixup), where the paper is silent: one lambda a step for all methods, FMix and ResizeMix in their published forms "
    "(--mixer.fidelity), no Nesterov momentum. CutMix and SaliencyMix mix half of the batches on CIFAR, as their own papers "
    "do. AutoMix's floor (5.3) is the network's: CIFAR 0.1 to 0.05, the Mix Block alike; Tiny-ImageNet 0.2 to 0.05, the Mix "
    "Block 0.1 to 0.001; ImageNet 0.1 to 0, the Mix Block to 0.001. Unlike the paper, as the code: AutoMix's momentum is "
    "constant for a tenth of the run, and its student mixes by mixup where lambda or 1 - lambda is below 0.08. Two projections "
    "(Eq. 4 has one) and two class heads are those that table 7 counts; which head is tested is not said: that of the mixed "
    "loss, of the student. Unlike the code: AutoMix's mask loss is per sample, as Eq. 6; random crops of Tiny-ImageNet are "
    "resized bilinearly, not bicubically; PuzzleMix's energy has another solver."
)
TRANSFER_OPEN = (
    "The weight decay of fine-tuning, and AutoMix's rates there, are the authors' configs': 5e-4; 0.001 to 0, the Mix Block "
    "0.01 to 0.0005. "
)


def table(number: int, networks: dict[str, tuple[str, ...]], methods: tuple[str, ...], note: str = OPEN) -> Table:
    """A table of the paper: every data set is trained in one way throughout."""
    ways = {"tiny-imagenet": TINY, "imagenet": IMAGENET, "cub-200": TRANSFER, "aircraft": TRANSFER}
    return Table(
        source=f"AutoMix, table {number}",
        networks=networks,
        common=CIFAR,
        methods={method: METHODS.get(method, {}) for method in methods},
        by_dataset={dataset: ways[dataset] for dataset in networks if dataset in ways},
        by_row={row: settings for row, settings in BY_ROW.items() if row[0] in networks and row[1] in methods},
        note=note,
    )


AUTOMIX_TABLES = {
    "automix-table1": table(
        1,
        {"cifar10": SMALL_NETWORKS, "cifar100": SMALL_NETWORKS, "cub-200": LARGE_NETWORKS},
        tuple(METHODS),
        TRANSFER_OPEN + OPEN,
    ),
    "automix-table2": table(
        2,
        {"cifar100": ("resnext50-32x4d",)},
        ("erm", "mixup", "cutmix", "puzzlemix", "augmix", "automix"),
        "The figures on clean images are not those of table 1; what was trained differently is not said. " + OPEN,
    ),
    "automix-table3": table(
        3,
        {
            "tiny-imagenet": SMALL_NETWORKS,
            "imagenet": ("resnet18-imagenet", "resnet34-imagenet", "resnet50-imagenet", "resnet101-imagenet"),
        },
        tuple(METHODS),
    ),
    "automix-table4": table(
        4,
        {"cub-200": LARGE_NETWORKS},
        ("erm", "mixup", "cutmix", "fmix", "puzzlemix", "automix"),
        "MaxBoxAccV2 of the networks of table 1. " + TRANSFER_OPEN + OPEN,
    ),
    "automix-table5": table(
        5,
        {"tiny-imagenet": SMALL_NETWORKS},
        ("automix",),
        "No mask loss: --method.mask-weight 0; epsilon: --method.mask-margin; L2: --method.mask-norm l2. " + OPEN,
    ),
    "automix-table6": table(
        6,
        {"cifar100": ("resnet18",), "tiny-imagenet": ("resnet18",)},
        ("mixup", "cutmix", "automix"),
        "The text says 800 epochs for both sets; the figures of plain mixup and cutmix on Tiny-ImageNet are table 3's, of 400 "
        "epochs: so here. Rows with MP, also around mixup and cutmix, have AutoMix's learning rates. " + OPEN,
    ),
    "automix-table7": table(
        7,
        {"tiny-imagenet": SMALL_NETWORKS},
        ("erm", "automix"),
        "Layers: --method.layer 1 to 4. ResNeXt-50's l1 and l2 have the parameters of 64 and 256 channels, its stem and first "
        "stage; here they are stages 1 and 2, of 256 and 512. " + OPEN,
    ),
    "automix-table8": table(
        8,
        {"aircraft": LARGE_NETWORKS},
        tuple(METHODS),
        "How FGVC-Aircraft was trained is not said: as CUB-200 in table 1. " + TRANSFER_OPEN + OPEN,
    ),
}
