"""How the table of "Multi-Sample" (prediction of two samples at once) was trained."""

from classify.presets.table import Table

MULTI_SAMPLE_TABLES = {
    "multi-sample-table1": Table(
        source="Multi-Sample, table 1",
        networks={"cifar10": ("resnet56",)},
        common={
            "epochs": 100,
            "batch_size": 128,
            "lr": 0.1,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 1e-4,
            "schedule": "steps",
            "lr_drops": (0.4, 0.6, 0.8),
        },
        methods={
            "mixup-x": {"mixer": {"image_range": (0.0, 1.0)}},
            "mixup-l": {"mixer": {"label_range": (0.0, 1.0)}},
            "multi-sample": {"method_options": {"heads": 2}},
            "erm": {"lr": 0.01},
        },
        note=(
            "The batch is 128 on each of two GPUs (two processes here). Mixup-C of that paper is multi-sample, with two heads as "
            "in 5.2. Fine-tuning is --method erm --finetune-from RUN; its rate and length are not given: 0.01 and the rest alike."
        ),
    )
}
