"""How the tables of "Understanding Mixup Training Methods" and of "Multi-Sample" were trained."""

from classify.presets.table import Settings, Table

SGD = {
    "batch_size": 128,
    "lr": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 1e-4,
    "schedule": "steps",
}
#: V-A.
CIFAR = {**SGD, "epochs": 200, "lr_drops": (0.5, 0.75), "normalise": "mean"}
#: V-A: divided by 10 after 30, 60 and 80 of 90 epochs.
IMAGENET = {"epochs": 90, "batch_size": 256, "lr_drops": (30 / 90, 60 / 90, 80 / 90), "normalise": "mean-std"}

#: lambda once a batch, as drawn for the label, and the batch in two halves: their code (spatial-mixup).
PUBLISHED = {"alpha": 1.0, "per_batch": True, "fidelity": "published"}
MIXED: dict[str, Settings] = {
    "mixup": {"mixer": {"alpha": 1.0, "per_batch": True}},
    **{method: {"mixer": PUBLISHED} for method in ("mixup-h", "mixup-hv", "mixup-hc")},
}

UNDERSTANDING_TABLES = {
    "understanding-mixup-table1": Table(
        source="Understanding Mixup, table 1",
        networks={
            "cifar10": ("preact-resnet18-published", "densenet-bc-190", "resnext29-8x64d"),
            "cifar100": ("preact-resnet18-published", "resnext29-8x64d"),
            "imagenet": ("resnet50-imagenet", "resnet101-imagenet", "resnext101-64x4d-imagenet"),
        },
        common=CIFAR,
        methods={"erm": {}, **MIXED},
        by_dataset={"imagenet": IMAGENET},
        by_row={("imagenet", method): {"mixer": {"alpha": 0.2}} for method in MIXED},
        note=(
            "The batch is 128 on each of two GPUs for CIFAR (two processes here), 256 in all for ImageNet. On ImageNet alpha "
            "is that of Zhang et al.: 0.2. ERM and mixup-C (mixup) are quoted from Zhang et al. The normalisation of ImageNet "
            "is not given: mean and deviation. As in their code, lambda is drawn once a batch, a batch is split in half "
            "between the two forms of -HV and -HC, the label weight of a stitch is lambda as drawn (Eq. 2), not the area P/W, "
            "and PreAct ResNet-18 has no last batch norm."
        ),
    )
}

MULTI_SAMPLE_TABLES = {
    "multi-sample-table1": Table(
        source="Multi-Sample, table 1",
        networks={"cifar10": ("resnet56",)},
        common={**SGD, "epochs": 100, "lr_drops": (0.4, 0.6, 0.8)},
        methods={
            "mixup-x": {"mixer": {"image_range": (0.0, 1.0)}},
            "mixup-l": {"mixer": {"label_range": (0.0, 1.0)}},
            "multi-sample": {"method_options": {"heads": 2}},
            "erm": {"lr": 0.01},
        },
        note=(
            "The batch is 128 on each of two GPUs (two processes here). Mixup-C of that paper is multi-sample, with two heads "
            "as in 5.2. Fine-tuning is --method erm --finetune-from RUN; its rate and length are not given: 0.01 and the rest "
            "alike. Whether lambda is drawn per image or per batch is not said: per image (--mixer.per-batch, "
            "--method.per-batch). Nor how single images are tested: each is paired with itself."
        ),
    )
}
