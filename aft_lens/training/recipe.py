"""What a training run is made of, as frozen records that YAML recipes and flags fill."""

from dataclasses import dataclass, field
from typing import Literal

from aft_lens.data.files.reader import BAD_FILES
from aft_lens.models import DecoderConfig, ModelConfig

SCHEDULES = ("fixed", "linear", "cosine", "exponential")
COMPILE_MODES = ("default", "max-autotune-no-cudagraphs")


@dataclass(frozen=True)
class DataRecipe:
    """What is trained on. Raises ValueError on values that cannot be loaded."""

    name: str = "digits"
    """A registered data set, e.g. digits, cifar10, folder:PATH or synthetic:COUNT (noise, to measure speed)."""
    root: str | None = None
    """Folder of downloaded data; data/ if left out."""
    augment: str = "none"
    """Changes of single training images: none, shift, affine, flip-crop, resized-crop or deit."""
    mixup: float = 0.0
    """Beta parameter of Mixup over a batch; 0 is off."""
    cutmix: float = 0.0
    """Beta parameter of CutMix over a batch; 0 is off."""
    label_smoothing: float = 0.0
    """Share of each label spread over all classes, in [0, 1)."""
    repeats: int = 1
    """Times each drawn image appears in a row, newly augmented (repeated augmentation)."""
    batch_size: int | Literal["auto"] = 64
    """Images a process and step; `accumulate` of them and all processes make an optimizer's step. auto: the largest
    power of two that fits into the GPU's memory, found by trying."""
    workers: int | Literal["auto"] = "auto"
    """Loader processes of each training process; 0 loads in that itself. auto: for image files a core each, as far as
    there are cores; none for data in memory."""
    bad_files: Literal["skip", "stop"] = "skip"
    """What becomes of an image file that cannot be read: skip trains on another image in its place, and says how many
    and which, up to a tenth of all; stop ends the run."""
    resident: bool = False
    """Keep the data set on each training device and augment by batch; for data sets in memory."""
    held_out: bool = True
    """Whether validation images stay out of training. False trains on them too, and what is then measured on them says
    nothing of new images."""

    def __post_init__(self) -> None:
        """Check every value."""
        workers = 0 if self.workers == "auto" else self.workers
        size = 1 if self.batch_size == "auto" else self.batch_size
        if self.bad_files not in BAD_FILES:
            raise ValueError(f"data.bad_files must be one of {BAD_FILES}, got {self.bad_files!r}")
        if self.resident and (self.repeats > 1 or workers):
            raise ValueError(
                f"data.resident needs repeats 1 and workers 0, got {self.repeats} and {self.workers}; set one or other"
            )
        if size < 1 or self.repeats < 1 or workers < 0:
            raise ValueError(
                f"data: batch_size and repeats must be 1 or more and workers 0 or more, "
                f"got {self.batch_size}, {self.repeats} and {self.workers}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"data.label_smoothing must be in [0, 1), got {self.label_smoothing}")


@dataclass(frozen=True)
class SequenceRecipe:
    """What a decoder is trained on. Raises ValueError on values that cannot be loaded."""

    name: str = "digits"
    """Images in memory (digits, fashion-mnist, cifar10) as their sub-pixels, enwik8:PATH, or text:PATH."""
    root: str | None = None
    """Folder of downloaded data; data/ if left out."""
    augment: str = "none"
    """Changes of training images: none, levels (a number of -10 to 10 on all sub-pixels) or flip-levels (flips before
    it, Sec. 5.1)."""
    batch_size: int = 128
    """Sequences a process and step; `accumulate` of them and all processes make an optimizer's step."""
    held_out: bool = True
    """Whether validation symbols stay out of training. False trains on them too, and what is then measured on them says
    nothing of new ones."""

    def __post_init__(self) -> None:
        """Check every value."""
        if self.batch_size < 1:
            raise ValueError(f"data.batch_size must be 1 or more, got {self.batch_size}")


@dataclass(frozen=True)
class OptimRecipe:
    """AdamW under a linear warm-up and a cosine. Raises ValueError on values that cannot train."""

    lr: float = 1e-3
    """Highest learning rate."""
    bias_lr_scale: float = 1.0
    """Learning rate of position biases over that of the other weights."""
    min_lr: float = 1e-6
    """Learning rate at the end."""
    warmup_epochs: float = 2.0
    """Epochs of linear growth from 0."""
    weight_decay: float = 0.05
    """Decay of matrices; biases, norms, embeddings and position biases have none."""
    clip: float = 1.0
    """Largest gradient norm of a step; 0 is off."""
    accumulate: int = 1
    """Batches summed into one step."""
    ema: float = 0.0
    """Decay of the exponential moving average of the weights, by step; 0 is off."""

    def __post_init__(self) -> None:
        """Check every value."""
        if min(self.lr, self.bias_lr_scale) <= 0 or min(self.min_lr, self.warmup_epochs) < 0:
            raise ValueError(
                f"optim: lr and bias_lr_scale must be above 0, min_lr and warmup_epochs 0 or more; got {self}"
            )
        if self.accumulate < 1 or not 0 <= self.ema < 1:
            raise ValueError(
                f"optim: accumulate must be 1 or more and ema in [0, 1), got {self.accumulate} and {self.ema}"
            )


@dataclass(frozen=True)
class SparsityRecipe:
    """How position biases are made sparse while training. Raises ValueError on an unknown schedule."""

    entropy_weight: float = 0.0
    """Weight of Eq. 9's entropy of softmax(w), in nats, summed over layers and heads (the paper: 0.001); 0 is off."""
    gate_weight: float = 0.0
    """Weight of the expected number of open gates, summed over layers and heads (position_bias hard_concrete); 0 is
    off."""
    temperature_schedule: str = "fixed"
    """Eq. 10's temperature over the run: fixed (the paper), linear, cosine or exponential."""
    temperature_end: float = 0.5
    """Temperature at the end of a schedule that is not fixed."""

    def __post_init__(self) -> None:
        """Check every value."""
        if self.temperature_schedule not in SCHEDULES:
            raise ValueError(
                f"sparsity.temperature_schedule must be one of {SCHEDULES}, got {self.temperature_schedule!r}"
            )
        if self.temperature_end <= 0 or min(self.entropy_weight, self.gate_weight) < 0:
            raise ValueError(
                f"sparsity: temperature_end must be above 0, entropy_weight and gate_weight 0 or more, "
                f"got {self.temperature_end}, {self.entropy_weight} and {self.gate_weight}"
            )


@dataclass(frozen=True)
class TrainerRecipe:
    """Where and how long; the words are Lightning's Trainer's."""

    epochs: int = 60
    """Passes over the training split."""
    accelerator: str = "auto"
    """auto, cpu or gpu."""
    devices: int | str = 1
    """Processes of this machine, one a device, or auto for all."""
    num_nodes: int = 1
    """Machines."""
    strategy: str = "auto"
    """auto, ddp, ddp_find_unused_parameters_true, ..."""
    precision: str = "32-true"
    """32-true, bf16-mixed or 16-mixed; auto: bf16-mixed on a GPU, else 32-true."""
    compile: bool | Literal["auto"] = False
    """Compile every block of the model with torch.compile; auto: on a GPU."""
    compile_mode: str = "default"
    """torch.compile's mode: default or max-autotune-no-cudagraphs."""
    cuda_graphs: bool | Literal["auto"] = False
    """Replay forward and backward pass as CUDA graphs: quicker wherever a step waits for the host; auto: on a CUDA
    device, where the mixer allows it."""
    save_steps: int = 0
    """Steps after which the run's state is kept within an epoch too, to go on from there; 0: at the end of epochs."""
    limit_batches: int | float = 1.0
    """Training and validation batches an epoch: a share (float) or a number (int), to try things."""

    def __post_init__(self) -> None:
        """Check every value."""
        if self.compile_mode not in COMPILE_MODES:
            raise ValueError(
                f"trainer.compile_mode must be one of {COMPILE_MODES}, got {self.compile_mode!r}; CUDA graphs are "
                "trainer.cuda_graphs"
            )
        if self.epochs < 1 or self.save_steps < 0:
            raise ValueError(
                f"trainer: epochs must be 1 or more and save_steps 0 or more, got {self.epochs} and {self.save_steps}"
            )


def fits_cuda_graphs(model: ModelConfig | DecoderConfig) -> bool:
    """Whether a model trains in graphs as it does without them: some mixers ask the host at every step."""
    return model.traits.fits_cuda_graphs(model.spec())


def _check_cuda_graphs(model: ModelConfig | DecoderConfig, optim: OptimRecipe, trainer: TrainerRecipe) -> None:
    """ValueError where graphs are asked for that a model or its accumulation does not go with."""
    if trainer.cuda_graphs is not True:
        return
    if not fits_cuda_graphs(model):
        outside = f" and outside {model.outside}" if isinstance(model, ModelConfig) else ""
        raise ValueError(
            f"trainer.cuda_graphs does not go with mixer {model.mixer}{outside}: no graph can hold their checks for "
            "lost precision; set cuda_graphs to false"
        )
    if optim.accumulate > 1:
        raise ValueError(
            f"trainer.cuda_graphs needs optim.accumulate 1, got {optim.accumulate}: a graph writes its gradients to "
            "one place at every step; set a larger data.batch_size, or cuda_graphs to false"
        )


@dataclass(frozen=True)
class Recipe:
    """One runnable experiment. Raises ValueError on values that do not go together."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataRecipe = field(default_factory=DataRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    sparsity: SparsityRecipe = field(default_factory=SparsityRecipe)
    trainer: TrainerRecipe = field(default_factory=TrainerRecipe)
    seed: int = 0
    """Of first weights, order of images, augmentation and samples."""

    def __post_init__(self) -> None:
        """Check what concerns several parts."""
        if self.sparsity.gate_weight and self.model.bias_kind != "hard_concrete":
            raise ValueError(
                f"sparsity.gate_weight needs model.position_bias hard_concrete, got {self.model.bias_kind!r}: no other "
                "bias has gates"
            )
        _check_cuda_graphs(self.model, self.optim, self.trainer)


@dataclass(frozen=True)
class DecoderRecipe:
    """One runnable experiment of a decoder. Raises ValueError on values that do not go together."""

    model: DecoderConfig = field(default_factory=DecoderConfig)
    data: SequenceRecipe = field(default_factory=SequenceRecipe)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    trainer: TrainerRecipe = field(default_factory=TrainerRecipe)
    seed: int = 0
    """Of first weights, order of sequences, augmentation and dropout."""

    def __post_init__(self) -> None:
        """Check what concerns several parts."""
        _check_cuda_graphs(self.model, self.optim, self.trainer)


AnyRecipe = Recipe | DecoderRecipe
