"""`aft-lens list`: what there is to train, load and look at."""

from pathlib import Path

from aft_lens.checkpoint import ROOTS, SHIPPED, held_out_accuracy, list_checkpoints, read_config, read_metrics
from aft_lens.data import DATASETS
from aft_lens.data.sequences import CORPORA
from aft_lens.errors import answer, printable
from aft_lens.models import decoder_config, list_decoders, list_models, model_config
from aft_lens.training.recipe_file import list_recipes, recipe_path
from analyses.parser import Parser


def main(arguments: list[str]) -> int:
    """Print models, data sets, recipes and checkpoints."""
    parser = Parser(prog="aft-lens list", description="What there is to train, load and look at.")
    parser.add_argument(
        "--root", type=Path, nargs="+", help="folders with checkpoints; default: checkpoints, runs and those that ship"
    )
    roots = parser.parse_args(arguments).root
    missing = [str(path) for path in roots or () if not path.is_dir()]
    if missing:
        raise ValueError(f"root must be existing folders, got {', '.join(missing)}")
    print("models")
    for name in list_models():
        config = model_config(name)
        print(
            f"  {name:<26} {config.mixer:<10} "
            f"width {config.embed_dim:<4} depth {config.depth:<3} heads {config.num_heads}"
        )
    print("decoders")
    for name in list_decoders():
        decoder = decoder_config(name)
        print(
            f"  {name:<30} {decoder.mixer:<18} width {decoder.embed_dim:<4} depth {decoder.depth:<3} "
            f"length {decoder.length}"
        )
    print("data sets\n  " + "\n  ".join(DATASETS))
    print("text, for decoders (which take images in memory, too)")
    for word in CORPORA:
        print(f"  {word}:{CORPORA[word].argument}")
    print("recipes")
    for name in list_recipes():
        print(f"  {name:<26} {_words(name)}")
    print("checkpoints")
    for path in (path for root in roots or ROOTS for path in list_checkpoints(root)):
        print(_line(path, str(path)))
    if not roots and ROOTS[0].resolve() != SHIPPED:
        for path in list_checkpoints(SHIPPED):  # a command takes them by their names
            print(_line(path, path.name))
    return 0


def _words(recipe: str) -> str:
    """The first line of a recipe's file, which says what it is."""
    return recipe_path(recipe).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def _line(path: Path, label: str) -> str:
    """A checkpoint's mixer, data and accuracy; of one that cannot be read, why."""
    try:
        record, rows = read_config(path), read_metrics(path)
    except (ValueError, OSError) as error:
        said = " ".join((answer(error) or str(error)).split())
        return printable(f"  {label:<32} cannot be read: {said}")
    last, accuracy = rows[-1] if rows else {}, held_out_accuracy(record, rows)
    score = "" if accuracy is None else f"held-out accuracy {100 * accuracy:.1f} %"
    if "val_bits" in last:
        score = f"val {last['val_bits']:.3f} bits a {record.data.get('unit', 'symbol')}"
    return printable(f"  {label:<32} {record.model.mixer:<10} {record.data.get('name', '?'):<14} {score}")
