"""Recipes, the LightningModule, sparsity in training, evaluation."""

from aft_lens.training.classifier import compile_blocks
from aft_lens.training.evaluate import Evaluation, evaluate
from aft_lens.training.recipe import (
    DataRecipe,
    OptimRecipe,
    Recipe,
    SparsityRecipe,
    TrainerRecipe,
    fits_cuda_graphs,
)
from aft_lens.training.recipe_file import (
    add_recipe,
    fitted,
    list_recipes,
    parse_recipe,
    read_recipe,
    recipe_of,
    recipe_path,
)
from aft_lens.training.run import TrainingStopped, recipe_data, train
from aft_lens.training.start import start_model

__all__ = [
    "DataRecipe",
    "Evaluation",
    "OptimRecipe",
    "Recipe",
    "SparsityRecipe",
    "TrainerRecipe",
    "TrainingStopped",
    "add_recipe",
    "compile_blocks",
    "evaluate",
    "fits_cuda_graphs",
    "fitted",
    "list_recipes",
    "parse_recipe",
    "read_recipe",
    "recipe_data",
    "recipe_of",
    "recipe_path",
    "start_model",
    "train",
]
