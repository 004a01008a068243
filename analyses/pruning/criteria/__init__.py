"""How much an offset matters: a score for every place of every window, higher where it should stay.

A criterion is a module that registers itself here; other packages add theirs by the entry points aft_lens.criteria.
"""

from importlib import import_module
from pkgutil import iter_modules

from analyses.pruning.criteria.registry import CRITERIA, Criterion, score

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["CRITERIA", "Criterion", "score"]
