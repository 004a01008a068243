"""What is claimed, and the criterion of each claim, as it was set before the runs that judge it were trained.

The commit that last changed this file is the registration: claims.json and controls.json name it, and runs that began
before it are refused (`analyses.study.judge`).
"""

from dataclasses import dataclass

MARGIN = 1.0
"""Points within which two configurations count as comparable: ten seeds and ten thousand test images, whose share of
the error is about a third of a point each, can show it."""


@dataclass(frozen=True)
class Claim:
    """A difference (treatment minus control) and where it must lie.

    `above`: holds if it is shown to be above `bound`, fails if it is shown to be below. `within`: holds if it is shown
    to lie within ±`bound`, fails if it is shown to lie outside. All else is inconclusive.
    """

    words: str
    source: str
    paper: str
    """The paper's figure for the same contrast, points of ImageNet top-1."""
    treatment: str
    control: str
    bound: float = 0.0
    kind: str = "above"
    metric: str = "accuracy"
    """accuracy (points); larger (points, at the data's own size against the crops' that were trained on); sparser
    (nats); near (Spearman correlation of w with nearness in the first two layers, 0 on average for shuffled maps);
    local (patches nearer than a flat map); agree (rank correlation of mean maps)."""


PAPER = (
    Claim("AFT-conv is at least as good as a ViT of its size", "Table 7", "+0.3 (small 11/16), +1.7 (tiny 11/32)",
          "conv", "vit", -MARGIN),
    Claim("AFT-full is comparable to the ViT", "Table 7", "+0.2 (tiny), −0.1 (small)", "full", "vit", MARGIN, "within"),
    Claim("Reparameterized biases are better than naive ones", "Table 10", "+1.4", "w7", "w7-free"),
    Claim("Factorized biases are better than whole ones in AFT-full", "Table 9", "+1.6", "full", "full-free"),
    Claim("Kernel 11 is better than kernel 3", "Table 11", "+0.9", "conv", "w3"),
    Claim("Kernel 19 is comparable to kernel 11", "Table 11, its larger kernels", "−0.1 to +0.2",
          "w19", "conv", MARGIN, "within"),
    Claim("A head for each channel is better than 16 heads", "Table 7", "+0.6 (small 16 to 384)", "h96", "conv"),
    Claim("The query matters", "Table 12", "+1.5", "conv", "no-query"),
    Claim("Global connectivity beyond the window matters", "Sec. 5.3", "+0.9", "w7", "w7-only"),
    Claim("Entropy regularization keeps the accuracy", "Sec. 8", "+0.1", "entropy", "conv", -MARGIN),
    Claim("Entropy regularization makes biases sparser", "Sec. 8, Fig. 7", "shown, no figure",
          "entropy", "conv", metric="sparser"),
    Claim("A single position a head loses less than a point", "Sec. 8", "−0.9", "single", "conv", -MARGIN),
    Claim("Larger test images than training crops help", "Sec. 5.3", "+0.6 (1.7 times)", "crops", "crops",
          metric="larger"),
    Claim("A ViT's weights are a better start than random ones", "Table 8", "+1.8", "transfer", "conv"),
    Claim("AFT-conv's biases are large near the target", "Fig. 6", "shown, no figure", "conv", "conv", metric="near"),
    Claim("A ViT's attention is nearer than a flat map", "Fig. 1", "shown, no figure", "vit", "vit", metric="local"),
    Claim("AFT-conv's biases agree with the ViT's relative attention", "Fig. 1 and 6", "shown, no figure",
          "conv", "vit", metric="agree"),
)  # fmt: skip
"""The paper's, each once, judged on the runs of the plan "claims" of each data set."""
OURS = (
    Claim("A learned position is better than a random one", "control", "–", "single", "random"),
    Claim("A learned position is better than a neighbour", "control", "–", "single", "ring"),
    Claim("A random position is better than pooling alone", "control", "–", "random", "pool"),
    Claim("With 96 positions a layer, learned ones are better than random ones", "control", "–",
          "single-96", "random-96"),
    Claim("A single position loses less than a point with 96 heads as well", "Sec. 8", "−0.9 (384 heads)",
          "single-96", "conv-96", -MARGIN),
    Claim("96 single positions a layer are better than 16", "control", "–", "single-96", "single"),
    Claim("Straight-through samples are better than soft ones", "control", "–", "single-hard", "single"),
    Claim("Cooling tau from 2 to 0.1 is better than 0.5 throughout", "control", "–", "single-cooled", "single"),
    Claim("CutMix makes the biases of the first two layers nearer", "arXiv 2605.16390", "–", "conv", "no-cutmix",
          metric="near"),
    Claim("Biases are nearer than shuffled ones in the first two layers", "Fig. 6", "shown, no figure", "conv", "conv",
          metric="near"),
)  # fmt: skip
"""Whether it matters which positions, and why a single one loses: judged on the runs of the plan "sparsity"."""
