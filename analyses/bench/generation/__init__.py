"""Tokens a second of decoders that write: a constant state against a cache of keys and values, by context."""

from analyses.bench.generation.measure import Speed, generation_ratio, step_speed

__all__ = ["Speed", "generation_ratio", "step_speed"]
