"""Limits of what visitors may send; known without the libraries that read it."""

MAX_BYTES = 20 * 2**20
"""Of an upload; `aft_lens.data.image` refuses the same."""
