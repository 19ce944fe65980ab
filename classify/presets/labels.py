"""Two experiments in which mixing can help a two-core CPU's networks: wrong labels, and few labels (docs/results.md)."""

from classify.presets.table import Settings, Table

METHODS: dict[str, Settings] = {
    method: {}
    for method in (
        "erm", "label-smoothing", "mixup", "mixup-hv", "cutmix", "puzzlemix", "manifold-mixup", "lamix", "automix",
    )
}  # fmt: skip
COMMON = {
    "momentum": 0.9,
    "nesterov": True,
    "schedule": "cosine",
    "crop_padding": "reflect",
    "mixed_precision": "bf16",
    "channels_last": True,
    "eval_every_epochs": 5,
}

LABEL_TABLES = {
    "wrong-labels": Table(
        source="docs/results.md, wrong labels",
        networks={"cifar10": ("conv9",), "tiles": ("conv9:width=32",)},
        common={
            **COMMON,
            "labels_per_class": 200,
            "label_noise": 0.4,
            "epochs": 100,
            "batch_size": 64,
            "lr": 0.05,
            "weight_decay": 2e-4,
        },
        methods=METHODS,
        by_dataset={"tiles": {"labels_per_class": None, "train_count": 500, "eval_count": 500, "image_size": 32}},
        note=(
            "Ours, after the wrong labels of Zhang et al. (mixup, 3.4): 40 % of the labels of 200 images per class are redrawn, "
            "so 36 % are wrong. All methods have their own papers' constants. On the tiles, which need no download: 500 images, "
            "a network of width 32."
        ),
    ),
    "few-labels": Table(
        source="docs/results.md, few labels",
        networks={"cifar10": ("conv9:width=128,dropout=0.5", "conv9:dropout=0.5")},
        common={
            **COMMON,
            "labels_per_class": 50,
            "epochs": 400,
            "batch_size": 32,
            "lr": 0.1,
            "weight_decay": 1e-3,
            "restart_every": 10,
            "eval_every_epochs": 10,
        },
        methods=METHODS,
        note=(
            "50 images per class. Published with this network of width 128, means of five seeds: 56.07 without mixing, mixup "
            "60.36, manifold mixup 61.73 %. Width 48, --network conv9:dropout=0.5, takes about 8 minutes on one core."
        ),
    ),
}
