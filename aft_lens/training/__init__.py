"""Recipes, the LightningModule, sparsity in training, evaluation; Lightning is imported by what trains alone."""

from typing import TYPE_CHECKING

from aft_lens.later import names_of

if TYPE_CHECKING:
    from aft_lens.training.bits import Bits, measure_bits
    from aft_lens.training.evaluation import Evaluation, evaluate
    from aft_lens.training.module import compile_blocks
    from aft_lens.training.recipe import (
        AnyRecipe,
        DataRecipe,
        DecoderRecipe,
        OptimRecipe,
        Recipe,
        SequenceRecipe,
        SparsityRecipe,
        TrainerRecipe,
        fits_cuda_graphs,
    )
    from aft_lens.training.recipe_file import (
        add_recipe,
        fitted,
        fitted_decoder,
        list_recipes,
        parse_recipe,
        read_decoder_recipe,
        read_recipe,
        recipe_of,
        recipe_path,
    )
    from aft_lens.training.run import TrainingStopped, first_process, recipe_data, recipe_sequences, remove_run, train
    from aft_lens.training.start import start_decoder, start_model

PLACES = {
    "AnyRecipe": "recipe",
    "Bits": "bits",
    "DataRecipe": "recipe",
    "DecoderRecipe": "recipe",
    "Evaluation": "evaluation",
    "OptimRecipe": "recipe",
    "Recipe": "recipe",
    "SequenceRecipe": "recipe",
    "SparsityRecipe": "recipe",
    "TrainerRecipe": "recipe",
    "TrainingStopped": "run",
    "add_recipe": "recipe_file",
    "compile_blocks": "module",
    "evaluate": "evaluation",
    "first_process": "run",
    "fits_cuda_graphs": "recipe",
    "fitted": "recipe_file",
    "fitted_decoder": "recipe_file",
    "list_recipes": "recipe_file",
    "measure_bits": "bits",
    "parse_recipe": "recipe_file",
    "read_decoder_recipe": "recipe_file",
    "read_recipe": "recipe_file",
    "recipe_data": "run",
    "recipe_of": "recipe_file",
    "recipe_path": "recipe_file",
    "recipe_sequences": "run",
    "remove_run": "run",
    "start_decoder": "start",
    "start_model": "start",
    "train": "run",
}
"""Each name, and the module that it is imported from when it is first used."""
__getattr__ = names_of(__name__, PLACES)

__all__ = [
    "AnyRecipe",
    "Bits",
    "DataRecipe",
    "DecoderRecipe",
    "Evaluation",
    "OptimRecipe",
    "Recipe",
    "SequenceRecipe",
    "SparsityRecipe",
    "TrainerRecipe",
    "TrainingStopped",
    "add_recipe",
    "compile_blocks",
    "evaluate",
    "first_process",
    "fits_cuda_graphs",
    "fitted",
    "fitted_decoder",
    "list_recipes",
    "measure_bits",
    "parse_recipe",
    "read_decoder_recipe",
    "read_recipe",
    "recipe_data",
    "recipe_of",
    "recipe_path",
    "recipe_sequences",
    "remove_run",
    "start_decoder",
    "start_model",
    "train",
]
