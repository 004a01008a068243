"""What Tables 2 to 6 claim of decoders, and where each claim holds in small: set before the runs that judge it.

The commit that last changed this file is the registration, which autoregression.json names.
"""

from dataclasses import dataclass

LEVEL = 0.05
"""Of p-values that are adjusted by Holm for all claims of the table."""


@dataclass(frozen=True)
class Claim:
    """`lower` has fewer bits a symbol than `higher`: holds if the difference is shown to be above 0, fails if below.

    Differences are paired by seed (Student's t of three); all else is inconclusive.
    """

    words: str
    source: str
    paper: str
    """The paper's two figures, bits."""
    task: str
    lower: str
    higher: str
    measure: str = "test"
    """test or train."""


CLAIMS = (
    Claim("AFT-local beats a Transformer on pixels", "Table 2", "2.74, 2.86", "pixels", "aft_local", "attention"),
    Claim("AFT-local beats local2d attention on pixels", "Table 2", "2.74, 2.90", "pixels", "aft_local",
          "local_attention"),
    Claim("AFT-local beats strided attention on pixels", "Table 2", "2.74, 2.80", "pixels", "aft_local",
          "strided_attention"),
    Claim("AFT-local beats AFT-simple on pixels", "Table 2", "2.74, 2.89", "pixels", "aft_local", "aft_simple"),
    Claim("AFT-simple beats local2d attention on pixels", "Table 2", "2.89, 2.90", "pixels", "aft_simple",
          "local_attention"),
    Claim("Factors beat a whole w on pixels", "Table 3", "2.74, 2.84", "pixels", "aft_local", "free"),
    Claim("Factors beat a whole w in training on pixels", "Table 3", "2.75, 2.82", "pixels", "aft_local", "free",
          "train"),
    Claim("AFT-local beats the Transformer in training on text", "Table 4", "0.972, 1.039", "text", "aft_local",
          "attention", "train"),
    Claim("The Transformer beats AFT-local on new text", "Table 4", "1.130, 1.154", "text", "attention", "aft_local"),
    Claim("AFT-local beats the Reformer on text", "Table 4", "1.154, 1.195", "text", "aft_local", "reformer"),
    Claim("AFT-local beats the Synthesizer on text", "Table 4", "1.154, 1.298", "text", "aft_local", "synthesizer"),
    Claim("AFT-local beats the Linear Transformer on text", "Table 4", "1.154, 1.207", "text", "aft_local",
          "linear_attention"),
    Claim("AFT-local beats the Performer on text", "Table 4", "1.154, 1.199", "text", "aft_local", "performer"),
    Claim("AFT-local beats AFT-simple on text", "Table 4", "1.154, 1.209", "text", "aft_local", "aft_simple"),
    Claim("A window of 32 beats one of 1 on text", "Table 5", "1.154, over 1.2", "text", "aft_local", "s1"),
    Claim("A window of 32 beats one of the whole length on text", "Table 5", "1.154, 1.173", "text", "aft_local",
          "s256"),
    Claim("Twice the length beats the length on text", "Table 6", "1.135, 1.154", "text", "t512", "aft_local"),
    Claim("The length beats half of it on text", "Table 6", "1.134, 1.135 (4,096, 2,048)", "text", "aft_local",
          "t128"),
)  # fmt: skip
"""Of `analyses.autoregression.plan`'s settings."""
