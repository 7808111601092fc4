"""The schema of a recipe: every key with its type, default, bounds and description, in the order data passes them."""

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

AllowableFinding = Literal[
    "patient_overlap",
    "identical_across_splits",
    "conflicting_labels",
    "duplicate_rows",
    "mixed_class_names",
    "unseen_classes",
    "no_grade_0",
    "unreadable_images",
    "missing_files",
]
ALLOWABLE_FINDINGS: tuple[str, ...] = get_args(AllowableFinding)


class Config(BaseModel):
    """Base class of all sections of a recipe: unknown keys are rejected and values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Config):
    """Which label layout to read, and which findings to accept."""

    format: str = Field(default="auto", description="label layout; auto: recognized from the files")
    classes: tuple[str, ...] = Field(
        default=(),
        description="new class names, in the order of their codes; or the names or codes of the data, to order them",
    )
    positive: str = Field(
        default="",
        description="positive class of two, by name or code; guessed if the other is named normal, healthy, benign, "
        "hem, control, negative, no … or 0",
    )
    allow: tuple[AllowableFinding, ...] = Field(
        default=(), description="findings of the data check to accept; the report lists them"
    )


class ColumnsConfig(Config):
    """Column names of a sheet; common names are recognized automatically."""

    path: str = Field(default="", description="column of the image path, or of a file name below the folder")
    label: tuple[str, ...] = Field(default=(), description="column of the label; several columns are one-hot labels")
    group: str = Field(default="", description="column of the patient, if its heading is not recognized")
    split: str = Field(default="", description="column of the split: train, valid, test, or a fold number")
    file_hash: str = Field(
        default="", description="column of a file hash, so that duplicates are found even when the files are missing"
    )
    folder: str = Field(default="", description="folder of the images, if it is not the folder of the sheet")
    group_from: str = Field(
        default="",
        description="pattern that finds the patient in the image id or path: P{patient}_{image}.png, "
        "or a regular expression",
    )


class SplitConfig(Config):
    """Train, validation and test split; patients are divided only with by=image, and splits are stratified by class."""

    keep: bool = Field(default=True, description="keep the splits of the data set; false: split again")
    valid: float = Field(default=0.15, gt=0, lt=0.9, description="validation share, if the data set has no such split")
    test: float = Field(default=0.0, ge=0, lt=0.9, description="test share, if the data set has no such split")
    folds: int = Field(default=0, ge=0, le=100, description="number of cross-validation folds; 0: no cross-validation")
    fold: int = Field(default=0, ge=0, description="the fold to validate on")
    file: str = Field(default="", description="reuse the splits of an earlier run: the path of its table.csv")
    by: Literal["patient", "image"] = Field(
        default="patient",
        description="keep the images of a patient together; image: accept that no patient is known, or ignore patients",
    )

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise ValueError(f"folds={self.folds} has no fold={self.fold}")
        if self.valid + self.test >= 1:
            raise ValueError(f"valid={self.valid:g} and test={self.test:g} leave no training images")
        return self


class ImagesConfig(Config):
    """Preprocessing: how every image is brought to the same size and stored, once."""

    crop_disc: bool = Field(default=False, description="find the fundus disc and trim its black border")
    center_crop: int = Field(default=0, ge=0, le=8192, description="side of a center crop before resizing; 0: none")
    resize_mode: Literal["squash", "crop", "pad", "none"] = Field(
        default="squash",
        description="resize to a square by ignoring the aspect ratio, cropping or padding; none: keep the scale",
    )
    size: int = Field(default=256, ge=8, le=4096, description="side of the stored square, in pixels")
    bit_depth: Literal[8, 10, 12, 14, 16] | None = Field(
        default=None,
        description="bits that 16-bit files use; training sets it from the largest value of the training images",
    )
    enhance: Literal["none", "clahe", "local_average"] = Field(
        default="none", description="contrast enhancement: CLAHE, or subtraction of the local mean color"
    )
    stain: Literal["none", "reinhard", "macenko"] = Field(
        default="none", description="stain normalization of smears; black stays black"
    )
    stain_mean: tuple[float, float, float] = Field(
        default=(18.0, 27.6, -22.4), description="with stain=reinhard: mean of L*a*b* in the reference"
    )
    stain_std: tuple[float, float, float] = Field(
        default=(4.0, 2.9, 3.3), description="with stain=reinhard: standard deviation of L*a*b* in the reference"
    )
    stain_vectors: tuple[float, float, float, float, float, float] = Field(
        default=(0.5626, 0.7201, 0.4062, 0.2159, 0.8012, 0.5581),
        description="with stain=macenko: RGB optical density of the nuclear stain, then of the other stain",
    )
    stain_max: tuple[float, float] = Field(
        default=(1.9705, 1.0308), description="with stain=macenko: 99th percentile of the concentration of each stain"
    )
    store: Literal["raw", "jpeg"] = Field(
        default="raw", description="keep the preprocessed pixels uncompressed, or as JPEG to save disk space"
    )
    jpeg_quality: int = Field(
        default=95, ge=95, le=100, description="with store=jpeg: JPEG quality, without chroma subsampling"
    )


AugmentationName = Literal[
    "rotate", "flip", "zoom", "stretch", "shear", "shift", "brightness", "contrast", "saturation", "hue",
    "color_temperature", "grayscale",
]  # fmt: skip
Composition = Literal["all", "random_order", "one_of"]
TtaMode = Literal["none", "five_crop", "ten_crop", "flips", "d4"]


class ViewsConfig(Config):
    """Cropping, augmentation in training and test-time augmentation."""

    crop_size: int = Field(default=224, ge=8, le=4096, description="side of the square that the network takes")
    start_size: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="progressive resizing: side of the crops of the first epoch, the same view in fewer pixels; "
        "it grows to crop_size over three quarters of the training; 0: crop_size throughout",
    )
    tta: TtaMode = Field(
        default="none",
        description="test-time augmentation: none (the center crop), center and corners, these and their flips, "
        "four flips, or all eight flips and quarter turns",
    )
    crop_position: Literal["center", "random"] = Field(default="center", description="position of the training crop")
    crop_padding: int = Field(
        default=0, ge=0, le=1024, description="padding on each side before a random crop, in pixels"
    )
    crop_scale: float = Field(
        default=0, ge=0, lt=1, description="random resized crop of at least this share of the area; 0: off"
    )
    crop_ratio: float = Field(default=1.33, ge=1, le=4, description="largest aspect ratio of a random resized crop")
    rotate: float = Field(default=0, ge=0, le=180, description="random rotation by up to this many degrees")
    flip_horizontal: float = Field(default=0, ge=0, le=1, description="probability of a horizontal flip")
    flip_vertical: float = Field(default=0, ge=0, le=1, description="probability of a vertical flip")
    zoom: float = Field(default=0, ge=0, lt=1, description="random scaling by a factor of 1 ± this value")
    stretch: float = Field(default=0, ge=0, lt=1, description="random change of the aspect ratio by 1 ± this value")
    shift: float = Field(default=0, ge=0, le=1, description="random translation by up to this share of the side")
    shear: float = Field(default=0, ge=0, le=60, description="random shear by up to this many degrees")
    brightness: float = Field(default=0, ge=0, le=1, description="random brightness factor of 1 ± this value")
    contrast: float = Field(default=0, ge=0, le=1, description="random contrast factor of 1 ± this value")
    saturation: float = Field(default=0, ge=0, le=1, description="random saturation factor of 1 ± this value")
    hue: float = Field(
        default=0, ge=0, le=0.5, description="random hue rotation by up to this share of the color circle"
    )
    color_temperature: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="random color temperature: red by a factor of 1 ± this value and blue by the opposite, at the same "
        "brightness",
    )
    grayscale: float = Field(default=0, ge=0, le=1, description="probability of conversion to grayscale")
    probabilities: dict[AugmentationName, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={},
        description="probability of single augmentations, such as {rotate: 0.5, hue: 0.2}; the others are always used",
    )
    geometry: Composition = Field(
        default="all", description="how to combine geometric augmentations: all, in random order, or one of them"
    )
    geometry_probability: float = Field(default=1, ge=0, le=1, description="probability of geometric augmentation")
    color: Composition = Field(
        default="all", description="how to combine color augmentations: all, in random order, or one of them"
    )
    color_probability: float = Field(default=1, ge=0, le=1, description="probability of color augmentation")
    erase: float = Field(default=0, ge=0, le=1, description="probability of random erasing (a black box)")
    erase_area: float = Field(default=0.2, gt=0, lt=1, description="largest share of the crop that is erased")
    custom_transform: str = Field(
        default="", description="your own last augmentation, as module:function, from image to image"
    )


AUTO_INIT = "auto"
"""The value of `init` that is replaced, before training, by the best initial weights at hand."""

PRETRAINED_NORMALIZATIONS = ("half", "imagenet", "dataset")
"""The normalizations that published weights can be fine-tuned with."""

MAX_ZCA_SIZE = 32
"""The largest side of a crop whose pixels are whitened: the matrix has (3 · 32 · 32)² values, 38 MB."""


class NetworkConfig(Config):
    """The network, its input normalization and its initial weights."""

    model: str = Field(default="resnet18", description="name of the network; the reference lists all")
    normalization: Literal["none", "half", "imagenet", "dataset", "sample", "whiten", "zca"] = Field(
        default="imagenet",
        description="input normalization: 0 to 1, −1 to 1, ImageNet's mean and std, those of the training split, those "
        "of each image (sample-wise), whitening of the three colors, or ZCA whitening of the pixels of small crops",
    )
    stem: Literal["imagenet", "small"] | None = Field(
        default=None, description="7×7 convolution with stride 2 and max pooling, or one 3×3 convolution"
    )
    stride_in: Literal["3x3", "1x1", "second"] = Field(
        default="3x3",
        description="which convolution of a bottleneck block has stride 2; second: also in basic blocks the second "
        "convolution, instead of the first",
    )
    conv_bias: bool = Field(default=False, description="convolutions have a bias")
    groups: int | None = Field(default=None, ge=1, description="number of groups of the 3×3 convolutions")
    width_per_group: int | None = Field(
        default=None, ge=1, description="channels per group of the 3×3 convolutions in the first stage"
    )
    init_scheme: Literal["kaiming", "torch"] = Field(
        default="kaiming",
        description="how random weights of convolutions are drawn: Kaiming (He) initialization, normal with fan out, "
        "or PyTorch's default",
    )
    zero_init_residual: bool = Field(
        default=False, description="initialize the last batch norm of each block with 0, so each starts as identity"
    )
    dropout: float = Field(default=0, ge=0, lt=1, description="dropout probability before the head")
    init: str = Field(
        default="scratch",
        description="initial weights: scratch, imagenet, imagenet-v2, hf:OWNER/REPOSITORY, a file, or an earlier run; "
        "auto: imagenet where its weights can be had, else scratch",
    )

    @model_validator(mode="after")
    def _check_pretrained_weights(self) -> Self:
        if self.init in ("imagenet", "imagenet-v2"):
            if self.normalization not in PRETRAINED_NORMALIZATIONS:
                raise ValueError(
                    f"init={self.init} was trained with normalization=imagenet, not {self.normalization}. "
                    "Set normalization=imagenet"
                )
            if self.stride_in != "3x3":
                raise ValueError(f"init={self.init} was trained with stride_in=3x3, not {self.stride_in}")
            if self.conv_bias:
                raise ValueError(f"init={self.init} was trained without biases. Set conv_bias=false")
        return self


BatchSize = Annotated[int, BeforeValidator(lambda value: 0 if value == "auto" else value)]


class TrainingConfig(Config):
    """Optimization: epochs, optimizer, learning-rate schedule, loss, sampling and fine-tuning."""

    epochs: int = Field(default=20, ge=1, description="number of passes over the training split")
    minutes: float = Field(
        default=0,
        ge=0,
        description="time budget, which replaces epochs; cosine and one_cycle then follow the clock; 0: no time budget",
    )
    batch_size: BatchSize = Field(
        default=32, ge=0, description="images per step, over all devices; auto: the largest that fits in GPU memory"
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Field(default="sgd", description="optimizer")
    learning_rate: float = Field(default=0.05, gt=0, description="peak learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD, and beta1 of Adam")
    nesterov: bool = Field(default=False, description="Nesterov momentum, with optimizer=sgd only")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay (L2 regularization)")
    no_decay_norm_bias: bool = Field(default=False, description="no weight decay for batch norm and biases")
    lr_scaling: Literal["none", "linear", "square_root"] = Field(
        default="none", description="scale the learning rate with the batch size, relative to 32 images"
    )
    schedule: Literal["constant", "step", "cosine", "one_cycle", "plateau"] = Field(
        default="cosine", description="learning-rate schedule after the warmup"
    )
    warmup: float = Field(
        default=0,
        ge=0,
        description="epochs of linear warmup; with schedule=one_cycle, 0 means 30 % of the training",
    )
    lr_gamma: float = Field(
        default=0.1, gt=0, lt=1, description="with schedule=step or plateau: factor of each learning-rate drop"
    )
    lr_step: int = Field(
        default=10,
        ge=1,
        description="epochs between drops with schedule=step; epochs without improvement before a drop with plateau",
    )
    clip_grad: float = Field(default=0, ge=0, description="largest norm of the gradients; 0: no gradient clipping")
    accumulate: int = Field(default=1, ge=1, description="batches per step (gradient accumulation)")
    loss: Literal["cross_entropy", "focal", "joint", "regression", "cumulative_link"] = Field(
        default="cross_entropy",
        description="loss function; the last three are for ordered classes, such as grades: joint is cross-entropy "
        "plus the squared error of the expected grade",
    )
    grade_weight: float = Field(
        default=0.5, ge=0, description="with loss=joint: weight of the squared error of the expected grade"
    )
    label_smoothing: float = Field(default=0, ge=0, lt=1, description="label smoothing")
    focal_gamma: float = Field(
        default=2, ge=0, description="with loss=focal: gamma, which lowers the weight of easy images"
    )
    regression_loss: Literal["smooth_l1", "squared"] = Field(
        default="smooth_l1", description="with loss=regression: loss of the difference between grade and label"
    )
    class_weights: Literal["none", "balanced", "square_root", "effective_number"] = Field(
        default="none", description="class imbalance: higher loss weights for rare classes, given the sampling"
    )
    logit_adjustment: float = Field(
        default=0, ge=0, description="strength of logit adjustment by the class frequencies; 0: off"
    )
    ema: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="decay of the exponential moving average (EMA) of the weights that is evaluated and saved; 0: off",
    )
    patience: int = Field(
        default=0, ge=0, description="early stopping after this many epochs without improvement; 0: never"
    )
    sampling: Literal["natural", "balanced", "square_root", "decay", "factors", "oversample"] = Field(
        default="natural",
        description="weighted sampling: each image once, classes equally often, by the square root of their size, "
        "from balanced to natural, by factors, or extra images of rare classes",
    )
    factors: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = Field(
        default=(), description="with sampling=factors: how many times each class is shown per epoch"
    )
    oversample: float = Field(
        default=0.5,
        ge=0,
        le=20,
        description="with sampling=oversample: extra images, as a share of the split, of all classes but one",
    )
    oversample_except: str = Field(
        default="0",
        description="with sampling=oversample: code or name of the class without extra images, such as grade 0 or the "
        "healthy class",
    )
    mixup: float = Field(default=0, ge=0, le=10, description="alpha of MixUp, which blends pairs of images; 0: off")
    cutmix: float = Field(
        default=0, ge=0, le=10, description="alpha of CutMix, which swaps boxes between images; 0: off"
    )
    precision: Literal["auto", "bf16", "float32"] = Field(
        default="auto", description="mixed precision in bf16, or float32; auto: bf16 if the hardware supports it"
    )
    select: Literal["accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc", "loss"] = Field(
        default="accuracy", description="validation metric that selects the best epoch"
    )
    head: Literal["random", "probe", "warm_start"] = Field(
        default="random",
        description="initial head. random: random weights, unless init has a head for these classes; probe: logistic "
        "regression on the features of the pretrained network, and no further training (linear probing); warm_start: "
        "the same, then training as usual (LP-FT)",
    )
    freeze: Literal["none", "head", "stage4", "stage3", "stage2", "stage1"] = Field(
        default="none", description="fine-tuning: train only the head, or the head and the stages down to this one"
    )
    unfreeze_every: int = Field(
        default=0, ge=0, description="with freeze: unfreeze the next stage every this many epochs; 0: never"
    )
    layer_decay: float = Field(
        default=1, gt=0, le=1, description="factor of the learning rate from one stage to the next lower one"
    )
    sync_batchnorm: bool = Field(
        default=False, description="with several devices: batch norm statistics over the images of all devices"
    )
    test_curve: bool = Field(
        default=False, description="also evaluate the test split after each epoch, for the learning curve only"
    )

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.warmup > self.epochs:
            raise ValueError(f"warmup={self.warmup:g} is longer than epochs={self.epochs}")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov=true needs optimizer=sgd and a momentum above 0")
        if self.minutes and self.sampling == "decay":
            raise ValueError(
                "sampling=decay needs a number of epochs, which minutes does not give. Set sampling=square_root"
            )
        if self.sampling == "factors" and not self.factors:
            raise ValueError("sampling=factors needs one number for each class, such as factors=1,7,7,7,7")
        if self.factors and not any(self.factors):
            raise ValueError(f"factors={','.join(f'{factor:g}' for factor in self.factors)} would show no image")
        if self.head != "random" and self.loss not in ("cross_entropy", "focal", "joint"):
            raise ValueError(
                f"head={self.head} fits a logit for each class, and loss={self.loss} needs another head. "
                "Set loss=cross_entropy or head=random"
            )
        if self.unfreeze_every and self.freeze == "none":
            raise ValueError(f"unfreeze_every={self.unfreeze_every} needs freeze, such as freeze=head")
        if self.loss == "regression" and (self.label_smoothing or self.logit_adjustment):
            raise ValueError(
                "label_smoothing and logit_adjustment need a classification loss. Set loss=cross_entropy or loss=focal"
            )
        return self

    @property
    def n_epochs(self) -> int:
        """The number of epochs: with head=probe, the fit counts as one and is all training."""
        return 1 if self.head == "probe" else self.epochs


LoggerName = Literal["tensorboard", "mlflow", "wandb"]


class MachineConfig(Config):
    """Devices, saving and logging; these keys do not change what is learned and may change on --resume."""

    devices: int = Field(
        default=0, ge=0, description="GPUs, or processes, per machine; 0: as started by torchrun or SLURM, else 1"
    )
    nodes: int = Field(default=0, ge=0, description="machines; 0: as started by torchrun or SLURM, else 1")
    strategy: Literal["auto", "ddp"] = Field(
        default="auto", description="multi-device training; ddp: distributed data parallel, also with one device"
    )
    gpu_cache: float = Field(
        default=0.5, ge=0, le=0.95, description="keep the pixels in GPU memory if they fit in this share of it"
    )
    compile: bool = Field(
        default=False, description="torch.compile: faster steps on a GPU after minutes of compilation"
    )
    save_every: float = Field(default=10, gt=0, description="minutes between checkpoints within an epoch")
    loggers: tuple[LoggerName, ...] = Field(default=(), description="experiment trackers that get each epoch's metrics")


DecisionRuleName = Literal["likeliest", "mean", "thresholds", "cost"]


class EvaluationConfig(Config):
    """What the classes mean, and how the predicted class follows from their probabilities."""

    ordered: bool = Field(default=False, description="the classes are ordered grades, from mild to severe")
    referable: int = Field(
        default=0, ge=0, description="with ordered=true: lowest grade, from 0, that is referred to a doctor; 0: none"
    )
    decide: Literal["auto", DecisionRuleName] = Field(
        default="auto",
        description="decision rule for the predicted class: most probable class, rounded mean grade, mean grade cut at "
        "thresholds tuned for quadratic kappa on validation, or lowest expected cost; auto: likeliest, but mean with "
        "ordered=true select=quadratic_kappa unless loss=regression",
    )
    costs: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = Field(
        default=(),
        description="with decide=cost: the cost of missing an image of each class; with ordered=true for each squared "
        "grade of distance, and 1 if not given",
    )

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.referable and not self.ordered:
            raise ValueError(f"referable={self.referable} needs ordered=true")
        if self.decide in ("mean", "thresholds") and not self.ordered:
            raise ValueError(f"decide={self.decide} needs ordered classes (grades). Set ordered=true")
        if self.decide == "cost" and not self.costs and not self.ordered:
            raise ValueError("decide=cost needs one cost for each class, such as costs=1,5")
        if self.costs and not any(self.costs):
            raise ValueError("costs are all 0, so that every class would cost the same. Set at least one above 0")
        return self
