"""Names of what can be chosen: criteria and analyses, those of other packages too."""

from aft_lens.training.recipe_file import list_recipes
from analyses.pruning.criteria import CRITERIA
from app.commands import command_words
from app.commands import pages as named_pages


def criteria() -> list[str]:
    """Pruning criteria."""
    return [*CRITERIA]


def pages() -> list[tuple[str, str]]:
    """Analyses that show themselves of one checkpoint, and their words."""
    words = command_words()
    return [(name, words[name]) for name in named_pages()]


def recipes() -> list[str]:
    """Recipes that ship."""
    return list_recipes()
