"""Names that other tools give to recipe keys: aliases with the same meaning, and explanations for the others."""

from typing import Any

_OTHER_NAMES = {
    # Network and initial weights
    "model": ("arch", "architecture", "backbone", "model_name"),
    "dropout": ("drop_rate", "dropout_rate"),
    # Data
    "positive": ("pos_label", "positive_class"),
    # Images
    "crop_size": ("img_size", "image_size", "input_size", "imgsz"),
    # Split
    "seed": ("random_state", "random_seed"),
    "valid": ("val_split", "valid_split", "validation_split", "val_size", "val_fraction"),
    "test": ("test_split", "test_size", "test_fraction"),
    "folds": ("kfold", "k_folds", "n_folds", "num_folds", "n_splits"),
    # Augmentation
    "flip_horizontal": ("hflip", "fliplr"),
    "flip_vertical": ("vflip", "flipud"),
    "rotate": ("degrees", "rotation"),
    "shift": ("translate",),
    "erase": ("erasing", "random_erasing", "reprob"),
    "mixup": ("mixup_alpha",),
    "cutmix": ("cutmix_alpha",),
    # Training
    "epochs": ("num_epochs", "n_epochs", "max_epochs", "num_train_epochs"),
    "batch_size": ("bs", "batch"),
    "optimizer": ("optim", "opt", "optimiser"),
    "learning_rate": ("lr", "lr0", "base_lr", "max_lr"),
    "weight_decay": ("wd",),
    "schedule": ("scheduler", "sched", "lr_scheduler", "lr_schedule"),
    "warmup": ("warmup_epochs",),
    "lr_gamma": ("lr_decay_rate",),
    "lr_step": ("step_size",),
    "clip_grad": ("grad_clip", "max_grad_norm", "clip_grad_norm", "gradient_clip_val"),
    "accumulate": ("grad_accum", "gradient_accumulation_steps", "accumulate_grad_batches"),
    "loss": ("criterion", "loss_fn"),
    "label_smoothing": ("smoothing",),
    "class_weights": ("class_weight",),
    "ema": ("ema_decay",),
    "patience": ("early_stopping_patience",),
    "select": ("monitor",),
    # Machine
    "devices": ("gpus", "num_gpus", "n_gpus"),
    "nodes": ("num_nodes",),
    "sync_batchnorm": ("sync_bn",),
    "compile": ("torch_compile",),
    "loggers": ("report_to", "logger"),
}
ALIASES = {name: key for key, names in _OTHER_NAMES.items() for name in names}
"""Recipe key by the name that another tool gives to the same thing."""

VALUE_ALIASES: dict[str, tuple[str, dict[Any, Any]]] = {
    "amp": ("precision", {True: "auto", False: "float32"}),
    "mixed_precision": ("precision", {True: "auto", False: "float32"}),
    "bf16": ("precision", {True: "bf16", False: "float32"}),
}
"""Recipe key and values by the name of a key of another tool whose values are written differently."""

_AUGMENTATIONS = (
    "Choose augmentations one by one: rotate, flip_horizontal, flip_vertical, zoom, shift, shear, brightness, "
    "contrast, saturation, hue, color_temperature, grayscale, erase, mixup or cutmix."
)
EXPLANATIONS = {
    "pretrained": "Set init=imagenet for weights pretrained on ImageNet; the default is init=scratch.",
    "weights": "Set init=imagenet, or init=FILE for weights of your own.",
    "checkpoint": "Set init=FILE or init=RUN to fine-tune its weights, or continue a run with resume.",
    "resume": "It is not a recipe key: pass resume=True to parfocal.train, or --resume to the command.",
    "freeze_backbone": "Set freeze=head to train only the head; it needs init=imagenet or other weights.",
    "linear_probe": "Set head=probe to fit only the head, with init=imagenet or other pretrained weights.",
    "augment": _AUGMENTATIONS,
    "augmentation": _AUGMENTATIONS,
    "color_jitter": "Set brightness, contrast, saturation and hue.",
    "random_resized_crop": "Set crop_scale to the smallest share of the area, and crop_ratio.",
    "scale": "Set zoom for random scaling, or crop_scale for random resized crops.",
    "resize": "Set size for the stored image and crop_size for what the network takes.",
    "mean": "Set normalization; the mean and std follow from it.",
    "std": "Set normalization; the mean and std follow from it.",
    "zca_whitening": "Set normalization=zca for crops of up to 32 pixels, or normalization=whiten for colors.",
    "samplewise_center": "Set normalization=sample.",
    "featurewise_center": "Set normalization=dataset.",
    "gamma": "Set lr_gamma for the learning-rate schedule, or focal_gamma for the focal loss.",
    "betas": "Set momentum, which is beta1 of Adam; beta2 is 0.999.",
    "focal": "Set loss=focal.",
    "early_stopping": "Set patience to the number of epochs without improvement.",
    "fp16": "It is not available. Set precision=bf16 on a GPU that supports it.",
    "device": "The GPU is used if there is one. Set CUDA_VISIBLE_DEVICES to choose another.",
    "num_workers": "Images are prepared once and loaded by threads, so there are no worker processes to set.",
    "workers": "Images are prepared once and loaded by threads, so there are no worker processes to set.",
    "num_classes": "The classes are read from the labels; classes=NAME,NAME names them.",
    "nc": "The classes are read from the labels; classes=NAME,NAME names them.",
    "data_dir": "The data is the first argument, not a recipe key.",
    "output_dir": "It is not a recipe key: pass out= to parfocal.train, or --out to the command.",
    "save_dir": "It is not a recipe key: pass out= to parfocal.train, or --out to the command.",
    "oversampling": "Set sampling=balanced, or sampling=oversample and oversample.",
    "weighted_sampler": "Set sampling=balanced, square_root or oversample.",
}
"""What to do instead, by a name that has no single recipe key of the same meaning."""
