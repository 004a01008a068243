"""The paper's claims, and the criterion of each as it was set before training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A difference (treatment minus control) and where it must lie.

    `above`: holds if the whole interval lies above `bound`, fails if the whole interval lies below it. `within`:
    holds if the interval lies within ±`bound`, fails if it lies wholly outside. All else is inconclusive.
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
    """accuracy (points), larger (points, at 1.5x or 2x the size), sparser (nats), local (patches), agree (rank
    correlation)."""


CLAIMS = (
    Claim("AFT-conv is at least as good as a ViT of its size", "Table 7", "+0.3 (small 11/16), +1.7 (tiny 11/32)",
          "conv", "vit", -0.2),
    Claim("AFT-full is comparable to the ViT", "Table 7", "+0.2 (tiny), −0.1 (small)", "full", "vit", 0.5, "within"),
    Claim("Reparameterized biases are better than naive ones", "Table 10", "+1.4", "w7", "w7-free"),
    Claim("Factorized biases are better than whole ones in AFT-full", "Table 9", "+1.6", "full", "full-free"),
    Claim("Kernel 3 is comparable to the ViT", "Table 11", "0.0", "w3", "vit", -0.5),
    Claim("Kernel 7 is better than kernel 3", "Table 11", "+0.9", "w7", "w3"),
    Claim("Kernel 11 is better than kernel 3", "Table 11", "+0.9", "conv", "w3"),
    Claim("Kernel 19 is comparable to kernel 11", "Table 11, its larger kernels", "−0.1 to +0.2",
          "w19", "conv", 0.5, "within"),
    Claim("Kernel 27 is comparable to kernel 11", "Table 11, its larger kernels", "−0.1 to +0.2",
          "w27", "conv", 0.5, "within"),
    Claim("Twice the heads are better", "Table 7", "not printed", "h32", "conv"),
    Claim("A head for each channel is better", "Table 7", "+0.6 (small 16 to 384), +0.9 (tiny 32 to 192)",
          "h96", "conv"),
    Claim("The query matters", "Table 12", "+1.5", "conv", "no-query"),
    Claim("Global connectivity beyond the window matters", "Sec. 5.3", "+0.9", "w7", "w7-only"),
    Claim("Entropy regularization keeps the accuracy", "Sec. 8", "+0.1", "entropy", "conv", -0.5),
    Claim("Entropy regularization makes biases sparser", "Sec. 8, Fig. 7", "shown, no figure",
          "entropy", "conv", metric="sparser"),
    Claim("A single position a head loses less than a point", "Sec. 8", "−0.9", "single", "conv", -1.0),
    Claim("A single position a head is comparable to the ViT", "Sec. 8", "0.0 (small)", "single", "vit", -0.5),
    Claim("1.5 times larger test images help AFT-conv", "Sec. 5.3", "+0.6 (1.7 times)", "1.5", "conv", metric="larger"),
    Claim("2 times larger test images help AFT-conv", "Sec. 5.3", "+0.6 (1.7 times)", "2.0", "conv", metric="larger"),
    Claim("A ViT's weights are a better start than random ones", "Table 8", "+1.8", "transfer", "conv"),
    Claim("AFT-conv's biases are nearer than a flat map", "Fig. 6", "shown, no figure", "conv", "conv",
          metric="local"),
    Claim("A ViT's attention is nearer than a flat map", "Fig. 1", "shown, no figure", "vit", "vit", metric="local"),
    Claim("AFT-conv's biases agree with the ViT's relative attention", "Fig. 1 and 6", "shown, no figure",
          "conv", "vit", 0.5, metric="agree"),
)  # fmt: skip
"""In the order of the table."""
