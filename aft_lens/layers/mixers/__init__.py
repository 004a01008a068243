"""Token mixers, a module each, which register themselves; every one takes (x `b t d`, grid) and returns `b t d`."""

from importlib import import_module
from pkgutil import iter_modules

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
