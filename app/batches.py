"""Fixed batches by the name that pages and scripts have had for them; the core makes them."""

from aft_lens.data.batches import batches

__all__ = ["batches"]
