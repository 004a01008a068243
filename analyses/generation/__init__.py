"""What decoders write: samples, and completions of what was cut off (Fig. 4)."""

from analyses.generation.complete import completed
from analyses.generation.result import Completions, Samples
from analyses.generation.sample import sampled

__all__ = ["Completions", "Samples", "completed", "sampled"]
