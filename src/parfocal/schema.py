"""The parts of a recipe: every key, its default, its bounds and what it means, in the order data meets them."""

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

AllowableFinding = Literal[
    "patient_overlap",
    "identical_across_splits",
    "conflicting_labels",
    "duplicate_rows",
    "unreadable_images",
    "missing_files",
]
ALLOWABLE_FINDINGS: tuple[str, ...] = get_args(AllowableFinding)


class Config(BaseModel):
    """What all parts of a recipe share: unknown keys are refused and values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Config):
    """How labels are read, and which faults are accepted."""

    format: str = Field(default="auto", description="label layout; auto: recognized from the files")
    classes: tuple[str, ...] = Field(default=(), description="names of the classes, in the order of their codes")
    allow: tuple[AllowableFinding, ...] = Field(
        default=(), description="faults accepted knowingly; printed on the report"
    )


class ColumnsConfig(Config):
    """Which columns of a sheet say what; the usual names are found without."""

    path: str = Field(default="", description="the image: a path, or a name that is found below the folder")
    label: tuple[str, ...] = Field(default=(), description="what it shows; several columns are one-hot")
    group: str = Field(default="", description="the patient")
    split: str = Field(default="", description="train, valid or test, or the number of a fold")
    file_hash: str = Field(default="", description="a digest of the file, to find doubles of images that are not there")
    folder: str = Field(default="", description="where the images lie, if not beside the sheet")
    group_from: str = Field(default="", description="regular expression on an image's id that finds the patient")


class SplitConfig(Config):
    """Who trains, validates and tests, where the data does not say; always whole patients, the class mix kept."""

    keep: bool = Field(default=True, description="take the data's own splits; false makes them anew")
    valid: float = Field(default=0.15, gt=0, lt=0.9, description="share for validation, where the data brings none")
    test: float = Field(default=0.0, ge=0, lt=0.9, description="share for the test split, where the data brings none")
    folds: int = Field(default=0, ge=0, le=100, description="make this many folds instead; one of them validates")
    fold: int = Field(default=0, ge=0, description="which fold validates, of the data's own folds or those made")
    file: str = Field(default="", description="take the splits from this table.csv of an earlier run")

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.folds == 1 or (self.folds and self.fold >= self.folds):
            raise ValueError(f"folds={self.folds} has no fold={self.fold}")
        if self.valid + self.test >= 1:
            raise ValueError(f"valid={self.valid:g} and test={self.test:g} leave nothing to train on")
        return self


class ImagesConfig(Config):
    """What the Store holds: every image framed to one size, once."""

    crop_disc: bool = Field(default=False, description="find the fundus disc and trim the black surround, first")
    center_crop: int = Field(default=0, ge=0, le=8192, description="then take the centre at the image's own scale")
    resize_mode: Literal["squash", "crop", "pad", "none"] = Field(
        default="squash",
        description="then squash to the square, crop the longer side, pad the shorter with black, or keep the scale",
    )
    size: int = Field(default=256, ge=8, le=4096, description="side of the stored square, in pixels")
    enhance: Literal["none", "clahe", "local_average"] = Field(
        default="none", description="then even the contrast by tiles, or take the local mean colour away"
    )
    stain: Literal["none", "reinhard", "macenko"] = Field(
        default="none", description="then bring smears to one stain; black stays black"
    )
    stain_mean: tuple[float, float, float] = Field(
        default=(18.0, 27.6, -22.4), description="reinhard's reference: mean L*a*b*"
    )
    stain_std: tuple[float, float, float] = Field(
        default=(4.0, 2.9, 3.3), description="reinhard's reference: deviation of L*a*b*"
    )
    stain_vectors: tuple[float, float, float, float, float, float] = Field(
        default=(0.5626, 0.7201, 0.4062, 0.2159, 0.8012, 0.5581),
        description="macenko's reference: density of red, green and blue of the nuclear stain, then of the other",
    )
    stain_max: tuple[float, float] = Field(
        default=(1.9705, 1.0308), description="macenko's reference: the 99th percentile of each stain's amount"
    )
    store: Literal["raw", "jpeg"] = Field(
        default="raw", description="keep pixels as they are, or as JPEG of high quality where the disk is too small"
    )
    jpeg_quality: int = Field(default=95, ge=95, le=100, description="of store=jpeg, always without chroma subsampling")


AugmentationName = Literal[
    "rotate", "flip", "zoom", "stretch", "shear", "shift", "brightness", "contrast", "saturation", "hue", "grayscale"
]
Composition = Literal["all", "random_order", "one_of"]
TtaMode = Literal["none", "five_crop", "ten_crop", "flips", "d4"]


class ViewsConfig(Config):
    """How an image is looked at: its centre in evaluation, drawn anew for each epoch in training."""

    crop_size: int = Field(default=224, ge=8, le=4096, description="side of the square the network sees")
    tta: TtaMode = Field(
        default="none",
        description="look at the centre; or average centre and corners, these and their flips, four flips, eight turns",
    )
    crop_position: Literal["center", "random"] = Field(default="center", description="where training crops")
    crop_padding: int = Field(
        default=0, ge=0, le=1024, description="how far random crops reach over the edge, in pixels"
    )
    crop_scale: float = Field(
        default=0, ge=0, lt=1, description="crop at least this share of the area and resize it; 0: no"
    )
    crop_ratio: float = Field(default=1.33, ge=1, le=4, description="of resized crops: sides up to this ratio")
    rotate: float = Field(default=0, ge=0, le=180, description="turned by up to this many degrees either way")
    flip_horizontal: float = Field(default=0, ge=0, le=1, description="probability of a left–right flip")
    flip_vertical: float = Field(default=0, ge=0, le=1, description="probability of a top–bottom flip")
    zoom: float = Field(default=0, ge=0, lt=1, description="scaled by 1 ± this share")
    stretch: float = Field(default=0, ge=0, lt=1, description="aspect changed by 1 ± this share")
    shift: float = Field(default=0, ge=0, le=1, description="moved by up to this share of the side")
    shear: float = Field(default=0, ge=0, le=60, description="sheared by up to this many degrees")
    brightness: float = Field(default=0, ge=0, le=1, description="multiplied by 1 ± this share")
    contrast: float = Field(default=0, ge=0, le=1, description="spread about mid-grey by 1 ± this share")
    saturation: float = Field(default=0, ge=0, le=1, description="spread about each pixel's grey by 1 ± this share")
    hue: float = Field(
        default=0, ge=0, le=0.5, description="turned about the grey axis by up to this share of the circle"
    )
    grayscale: float = Field(default=0, ge=0, le=1, description="probability of losing all colour")
    probabilities: dict[AugmentationName, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={}, description="probability of single steps, {rotate: 0.5, hue: 0.2}; else each is always taken"
    )
    geometry: Composition = Field(default="all", description="geometric steps: all, in random order, or one of them")
    geometry_probability: float = Field(default=1, ge=0, le=1, description="probability of any geometric step")
    color: Composition = Field(default="all", description="colour steps: all, in random order, or one of them")
    color_probability: float = Field(default=1, ge=0, le=1, description="probability of any colour step")
    erase: float = Field(default=0, ge=0, le=1, description="probability of blackening a box")
    erase_area: float = Field(default=0.2, gt=0, lt=1, description="largest share of the view a box covers")
    custom_transform: str = Field(default="", description="last step of one's own, module:function, image -> image")


class NetworkConfig(Config):
    """Which network, and how its pixels are scaled."""

    model: str = Field(default="resnet18", description="a network of the table in `parfocal.model.resnet`")
    normalization: Literal["none", "half", "imagenet", "dataset", "whiten"] = Field(
        default="imagenet",
        description="pixels as 0–1, as −1–1, by ImageNet's mean and deviation, by those of train, or whitened (ZCA)",
    )
    stem: Literal["imagenet", "small"] | None = Field(default=None, description="7×7/2 with pooling, or one 3×3/1")
    stride_in: Literal["3x3", "1x1"] = Field(default="3x3", description="the convolution of a bottleneck that halves")
    groups: int | None = Field(default=None, ge=1, description="groups of the 3×3 convolutions")
    width_per_group: int | None = Field(
        default=None, ge=1, description="channels of a group, at 64 channels of the first stage"
    )
    zero_init_residual: bool = Field(default=False, description="start every block as the identity")
    dropout: float = Field(default=0, ge=0, lt=1, description="dropped before the head")
    init: str = Field(
        default="scratch",
        description="first weights: scratch, imagenet, imagenet-v2, hf:OWNER/REPOSITORY, a file, or an earlier run",
    )

    @model_validator(mode="after")
    def _check_pretrained_weights(self) -> Self:
        if self.init in ("imagenet", "imagenet-v2"):
            if self.normalization in ("none", "whiten"):
                raise ValueError(f"init={self.init} saw pixels scaled by normalise=imagenet, not {self.normalization}")
            if self.stride_in != "3x3":
                raise ValueError(f"init={self.init} was trained with stride_in=3x3, not {self.stride_in}")
        return self


BatchSize = Annotated[int, BeforeValidator(lambda value: 0 if value == "auto" else value)]


class TrainingConfig(Config):
    """How the weights are found."""

    epochs: int = Field(default=20, ge=1, description="passes over the training split")
    minutes: float = Field(
        default=0, ge=0, description="train for so long instead, cosine and one_cycle by the clock; 0: epochs decide"
    )
    batch_size: BatchSize = Field(
        default=32, ge=0, description="images a step, over all devices; auto: what a card's memory takes"
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        default="sgd", description="rule that turns gradients into steps"
    )
    learning_rate: float = Field(default=0.05, gt=0, description="highest learning rate of the schedule")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD, and the first moment of Adam")
    nesterov: bool = Field(default=False, description="look-ahead momentum, SGD only")
    weight_decay: float = Field(default=0.0, ge=0, description="how strongly weights are drawn to zero")
    no_decay_norm_bias: bool = Field(default=False, description="no weight decay for batch norm and biases")
    lr_scaling: Literal["none", "linear", "square_root"] = Field(
        default="none", description="scale the learning rate with the images of a step, relative to 32"
    )
    schedule: Literal["constant", "step", "cosine", "one_cycle", "plateau"] = Field(
        default="cosine", description="how the learning rate goes on after warm-up"
    )
    warmup: float = Field(
        default=0,
        ge=0,
        description="epochs over which the learning rate climbs from near zero; one_cycle takes 30 % of the run for 0",
    )
    lr_gamma: float = Field(
        default=0.1, gt=0, lt=1, description="of step and plateau: what the learning rate is multiplied by"
    )
    lr_step: int = Field(
        default=10, ge=1, description="of step: every so many epochs; of plateau: after so many that were no better"
    )
    clip_grad: float = Field(default=0, ge=0, description="largest norm of the gradients; 0: no limit")
    accumulate: int = Field(default=1, ge=1, description="batches whose gradients are gathered for one step")
    loss: Literal["cross_entropy", "focal", "regression", "cumulative_link"] = Field(
        default="cross_entropy",
        description="what is made small; the last two are for ordered classes, such as grades",
    )
    label_smoothing: float = Field(
        default=0, ge=0, lt=1, description="share of the truth spread evenly over all classes"
    )
    focal_gamma: float = Field(
        default=2, ge=0, description="of focal: how much less images count that are answered well"
    )
    regression_loss: Literal["smooth_l1", "squared"] = Field(
        default="smooth_l1", description="of regression: how a grade's distance from the truth counts"
    )
    class_weights: Literal["none", "balanced", "square_root", "effective_number"] = Field(
        default="none", description="how much more images of rare classes count, given how often they are shown"
    )
    logit_adjustment: float = Field(
        default=0, ge=0, description="strength with which the classes' shares are added in training and so not learnt"
    )
    ema: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="judge and keep a moving average of the weights, of which each step keeps so much",
    )
    patience: int = Field(
        default=0, ge=0, description="end after so many epochs without a better selected figure; 0: never"
    )
    sampling: Literal["natural", "balanced", "square_root", "decay", "factors", "oversample"] = Field(
        default="natural", description="each image once, classes alike, by square root, from alike to natural, …"
    )
    factors: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] = Field(
        default=(), description="of sampling=factors: how often each class is shown"
    )
    oversample: float = Field(
        default=0.5,
        ge=0,
        le=20,
        description="of sampling=extra: longer by this share, from all but the largest class",
    )
    mixup: float = Field(default=0, ge=0, le=10, description="strength of MixUp, which blends pairs of images")
    cutmix: float = Field(default=0, ge=0, le=10, description="strength of CutMix, which swaps boxes between images")
    precision: Literal["auto", "bf16", "float32"] = Field(
        default="auto", description="auto: bf16 where the hardware has it"
    )
    select: Literal["accuracy", "balanced_accuracy", "kappa", "quadratic_kappa", "auc", "loss"] = Field(
        default="accuracy", description="figure on the validation split that chooses the best epoch"
    )
    freeze: Literal["none", "head", "stage4", "stage3", "stage2", "stage1"] = Field(
        default="none", description="train only the head, or the head and the stages down to this one"
    )
    unfreeze_every: int = Field(
        default=0, ge=0, description="of freeze: one more stage trains every so many epochs; 0: no"
    )
    layer_decay: float = Field(
        default=1, gt=0, le=1, description="learning rate multiplied by this for each stage below the head"
    )
    sync_batchnorm: bool = Field(
        default=False, description="of several devices: take the norms' mean over all their images"
    )
    test_curve: bool = Field(default=False, description="also measure the test split each epoch, for the curve only")

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.warmup > self.epochs:
            raise ValueError(f"warmup={self.warmup:g} is longer than epochs={self.epochs}")
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("nesterov=true needs optimiser=sgd and a momentum above 0")
        if self.minutes and self.sampling == "decay":
            raise ValueError("sampling=decay goes by epochs, and minutes tell none; say sampling=square_root")
        if self.sampling == "factors" and not self.factors:
            raise ValueError("sampling=factors needs one number for each class, such as factors=1,7,7,7,7")
        if self.factors and not any(self.factors):
            raise ValueError(f"factors={','.join(f'{one:g}' for one in self.factors)} would show no image")
        if self.unfreeze_every and self.freeze == "none":
            raise ValueError(f"unfreeze={self.unfreeze_every} needs a freeze, such as freeze=head")
        if self.loss == "regression" and (self.label_smoothing or self.logit_adjustment):
            raise ValueError("smoothing and logit_adjustment need a loss of classes, and regression is not")
        return self


LoggerName = Literal["tensorboard", "mlflow", "wandb"]


class MachineConfig(Config):
    """Where the work is done, and who is told; it decides nothing about what is learnt and may change on the way."""

    devices: int = Field(
        default=0,
        ge=0,
        description="graphics cards, or processes, of each machine; 0: as torchrun or SLURM say, or one",
    )
    nodes: int = Field(default=0, ge=0, description="machines; 0: as torchrun or SLURM say, or one")
    strategy: Literal["auto", "ddp"] = Field(
        default="auto",
        description="how several devices share a network: each holds it whole, and gradients are averaged",
    )
    gpu_cache: float = Field(
        default=0.5, ge=0, le=0.95, description="on a graphics card: keep the pixels there if they fit in this share"
    )
    compile: bool = Field(
        default=False,
        description="have PyTorch compile the network first: minutes of waiting, for faster steps on a graphics card",
    )
    save_every: float = Field(default=10, gt=0, description="minutes after which an epoch is saved in the middle")
    loggers: tuple[LoggerName, ...] = Field(default=(), description="also tell each epoch's figures to these")


class EvaluationConfig(Config):
    """What the classes mean to those who judge."""

    ordered: bool = Field(default=False, description="the classes are grades, each worse than the one before")
    referable: int = Field(
        default=0, ge=0, description="of ordered classes: from which on, counted from 0, a patient is referred; 0: none"
    )

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.referable and not self.ordered:
            raise ValueError(f"referable={self.referable} needs ordered=true")
        return self
