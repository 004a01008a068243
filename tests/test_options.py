"""What a user reads and writes on the command line: help, mistyped options, what data say of a model."""

import ast
import inspect
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning_advice import LIGHTNING_ADVICE
from torchvision.transforms.v2.functional import to_pil_image

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.models import ModelConfig, create_model
from aft_lens.progress import PATIENCE, Passes
from aft_lens.training import DataRecipe, OptimRecipe, Recipe, SparsityRecipe, TrainerRecipe, TrainingStopped
from analyses.command import _parser
from analyses.provenance import PUBLISHED, results_from
from app.cli import main
from app.commands import COMMANDS, command_module
from app.train import train_parser

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]
SHORT = ["--trainer.epochs=1", "--trainer.limit_batches=1", "--trainer.accelerator=cpu", "--model.depth=1"]
SECTIONS = {"model": ModelConfig, "data": DataRecipe, "optim": OptimRecipe, "sparsity": SparsityRecipe,
            "trainer": TrainerRecipe}  # fmt: skip


def field_words(kind):
    """The line under each field of a dataclass."""
    body = ast.parse(inspect.getsource(kind)).body[0].body
    words = {}
    for field, after in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
            words[field.target.id] = after.value.value
    return words


def squeezed(text):
    """Text without the breaks that help makes in it, which may come after a hyphen."""
    return re.sub(r"\s+", "", text)


def test_help_has_every_field_s_own_words():
    printed = squeezed(train_parser().format_help())
    for section, kind in SECTIONS.items():
        words = field_words(kind)
        assert set(words) == set(kind.__dataclass_fields__), section
        for name, line in words.items():
            assert f"--{section}.{name}" in printed
            assert squeezed(line) in printed, name
    assert squeezed(field_words(Recipe)["seed"]) in printed


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("train", "list")])
def test_every_option_of_every_command_is_explained(name):
    command = command_module(name).command
    parser = _parser(command, f"aft-lens {name}", True)
    printed = parser.format_help()
    assert "Raises" not in printed
    for action in parser._actions:
        nested = name == "study" and action.dest.startswith("study.")
        assert nested or action.help, f"aft-lens {name} --{action.dest}"


def test_the_same_options_have_the_same_words():
    words = {}
    for name in COMMANDS:
        if name in ("train", "list"):
            continue
        for action in _parser(command_module(name).command, name, True)._actions:
            if action.dest in ("root", "device") and name != "app":
                words.setdefault(action.dest, set()).add(squeezed(action.help).lower().split("(")[0].rstrip("."))
    assert words["root"] == {squeezed("folder of downloaded data; data/ if left out")}
    assert all("cpu,cudaorcuda:n" in one for one in words["device"])


@pytest.mark.parametrize("name", ["keys", "attention", "locality", "match", "explain", "transfer", "prune", "evaluate"])
def test_what_reads_images_takes_data_root_and_device(name):
    options = set(inspect.signature(command_module(name).command).parameters)
    assert options >= {"data", "root", "device"}
    assert "images" in options or name == "keys"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--recipe", "digits-conv", "--modl.depth", "3"], "option --modl.depth; did you mean --model.depth?"),
        (["bias", "digits-conv", "--ot", "x"], "option --ot; did you mean --out?"),
        (["attention", "digits-vit", "--image", "3"], "option --image; did you mean --images?"),
        (["bias", "digits-conv", "--zzz"], "no option --zzz. `aft-lens bias --help` shows all"),
        (["train", "--recipe", "digits-conv", "--model.depth", "x"], "--model.depth must be int, got x"),
        (["prune", "digits-conv", "--keep", "many"], "--keep must be float, got many"),
    ],
)
def test_a_mistyped_option_is_named_in_a_line_with_the_nearest(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("option", ["--drop-heads", "--drop_heads"])
def test_options_take_dashes_and_underscores_and_show_dashes(option):
    parser = _parser(command_module("prune").command, "aft-lens prune", True)
    assert parser.parse_args(["x", option, "0.5"]).drop_heads == 0.5
    printed = parser.format_help()
    assert "--drop-heads DROP_HEADS" in printed
    assert "--drop_heads" not in printed
    for word in ("--model.embed-dim", "--model.embed_dim"):
        assert train_parser().parse_args([word, "48"]).model.embed_dim == 48


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("train", "list")])
def test_help_has_types_in_words_and_says_that_names_are_taken(name):
    parser = _parser(command_module(name).command, f"aft-lens {name}", True)
    printed = parser.format_help()
    for word in ("<class", "null", "Union[", "Optional[", "{true,yes", str(Path.cwd())):
        assert word not in printed or (name, word) == ("demo", str(Path.cwd()))  # the folder that ships
    for action in parser._actions:
        if action.dest in ("checkpoint", "checkpoints", "source", "sources", "first"):
            said = re.sub(r"\s+", " ", action.help)
            assert (
                re.search("names? of (one|those) that ships? or (was|were) trained", said) or "those that ship" in said
            )


def test_train_s_help_begins_with_two_examples_that_parse():
    lines = train_parser().format_help().splitlines()[:2]
    assert lines[0].startswith("usage: aft-lens train --recipe digits-single")
    assert lines[1].split()[:2] == ["aft-lens", "train"]
    for line in lines:
        words = line.removeprefix("usage: ").removesuffix("[OPTIONS]").split()[4:]  # without the recipe's name
        train_parser().parse_args(words)


def test_figures_go_where_one_stands_unless_that_is_the_source(tmp_path):
    assert results_from(tmp_path) == Path("results")
    assert results_from(PUBLISHED.parents[1]) == results_from(PUBLISHED) == PUBLISHED


def test_a_mistyped_field_of_a_file_is_named_too(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text("model:\n  name: aft_conv_digits\n  dpth: 3\n")
    with pytest.raises(SystemExit):
        main(["train", "--recipe", str(tmp_path / "r.yaml")])
    assert "option --model.dpth; did you mean --model.depth?" in capsys.readouterr().err


def test_a_mistyped_command_is_named_with_the_nearest(capsys):
    assert main(["tran"]) == 2
    assert "'tran' is unknown: did you mean train?" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path):
    """Twelve images of each of three classes, in colour."""
    images = torch.randint(256, (36, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(images):
        place = tmp_path / "images" / f"class{number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        to_pil_image(image).save(place / f"{number}.png")
    return tmp_path / "images"


def test_classes_and_channels_come_from_the_data(folder, tmp_path, capsys):
    line = ["train", "--recipe=folder-conv", f"--data.name=folder:{folder}", "--data.workers=0", f"--out={tmp_path}"]
    small = ["--data.batch_size=4", "--model.img_size=16", "--model.embed_dim=32", "--model.window_size=3"]
    assert main([*line, *SHORT, *small]) == 0
    config = yaml.safe_load((tmp_path / "folder-conv" / "config.yaml").read_text())
    assert (config["model"]["num_classes"], config["model"]["in_chans"]) == (3, 3)
    printed = capsys.readouterr().out
    assert "model   aft_conv (reparameterized), 1 layers x 32 heads, width 32," in printed
    assert "training and" in printed
    assert "validation images of 3 x 16 x 16, 3 classes" in printed
    assert "device  cpu, 32-true; 1 epochs, batches of 4; into" in printed


def test_classes_that_are_given_are_held_to(folder, tmp_path, capsys):
    line = ["train", "--recipe=folder-conv", f"--data.name=folder:{folder}", f"--out={tmp_path}", *SHORT]
    assert main([*line, "--model.num_classes=7"]) == 2
    assert "model.num_classes must be 3 for data" in capsys.readouterr().err


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    model = create_model("aft_conv_digits", depth=1, embed_dim=16, num_heads=2)
    path = tmp_path_factory.mktemp("c") / "c"
    return save_checkpoint(path, model, data=load_data("digits").record(), recipe={}, seed=0, metrics=[])


def test_evaluate_compares_several_and_writes_json(checkpoint, capsys):
    assert main(["evaluate", str(checkpoint), "digits-conv", "--images", "60", "--json"]) == 0
    one, two = json.loads(capsys.readouterr().out)
    assert (one["checkpoint"], two["checkpoint"]) == (str(checkpoint), "digits-conv")
    for found in (one, two):
        assert found["images"] == sum(map(sum, found["confusion"])) == 60
        right = sum(row[place] for place, row in enumerate(found["confusion"]))
        assert right / 60 == pytest.approx(found["accuracy"])
    assert two["accuracy"] > one["accuracy"]


def test_evaluate_prints_the_confusion_matrix(checkpoint, capsys):
    assert main(["evaluate", str(checkpoint), "--images", "60", "--confusion"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("class (row) taken for (column)")
    assert lines[start + 1].split() == [str(number) for number in range(10)]
    assert sum(int(cell) for line in lines[start + 2 :] for cell in line.split()[2:]) == 60
    assert main(["evaluate", str(checkpoint), "--images", "0"]) == 2


@pytest.mark.parametrize("name", ["bias", "evaluate", "list", "train"])
def test_ctrl_c_ends_every_command_in_one_line(name, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("app.cli.command_module", lambda _: Namespace(main=interrupted))
    assert main([name]) == 130  # as shells say of SIGINT
    assert capsys.readouterr().err.strip() == f"aft-lens {name}: stopped by Ctrl-C"


def test_training_that_is_stopped_ends_every_command_in_one_line(monkeypatch, capsys):
    def stopped(*_):
        raise TrainingStopped("runs/x stopped with 1 of 2 epochs: go on with --resume")

    monkeypatch.setattr("app.cli.command_module", lambda _: Namespace(main=stopped))
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "aft-lens demo: runs/x stopped with 1 of 2 epochs: go on with --resume\n"


def test_bars_appear_for_what_takes_long_alone(capfd):
    passes = Passes([1, 2, 3], "quick")
    assert [*passes] == [1, 2, 3]
    assert (len(passes), passes[0]) == (3, 1)
    assert capfd.readouterr().err == ""
    code = (
        "import sys, time; from aft_lens import progress as p; p.PATIENCE = 0.1\n"
        "for _ in p.progress(range(5), 'file'): time.sleep(0.15)\n"
        "sys.stderr.isatty = lambda: True\n"
        "for _ in p.progress(range(5), 'slow'): time.sleep(0.15)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "slow:" in done.stderr
    assert "file:" not in done.stderr, "a bar in a file is many lines of nothing"
    assert PATIENCE == 3
