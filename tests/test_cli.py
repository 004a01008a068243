"""The aft-lens command: its own subcommands, dispatch, and input at fault."""

import re
import subprocess
import sys

import pytest

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.models import create_model
from app.cli import main

BARE = """
import sys
from importlib.machinery import PathFinder
EXTRAS = ("streamlit plotly captum matplotlib seaborn ot tabulate jinja2 timm transformers onnx onnxruntime onnxscript "
          "pandas mkdocs").split()
class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in EXTRAS else PathFinder.find_spec(name, path, target)
    @classmethod
    def find_distributions(cls, *context):
        found = PathFinder.find_distributions(*context)
        return (one for one in found if one.metadata["Name"].lower() not in EXTRAS)
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
from app.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""The command where nothing but the bare package is installed."""
TINY = ["--model.depth=1", "--model.embed_dim=16", "--model.num_heads=2", "--trainer.limit_batches=1"]


@pytest.fixture
def checkpoint(tmp_path):
    model = create_model("aft_conv_digits", depth=1, embed_dim=16, num_heads=2)
    return save_checkpoint(tmp_path / "c", model, data=load_data("digits").record(), recipe={}, seed=0, metrics=[])


def test_help_names_every_command(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    for name in ("train", "evaluate", "list", "bias", "keys", "attention", "prune", "app", "demo"):
        assert f"  {name} " in printed
    jobs = re.findall(r"^(\w+)$", printed, re.M)
    assert jobs == ["train", "browse", "write", "compare", "prune", "publish"]


HEAVY = {"lightning", "torchmetrics", "torchvision", "sklearn", "scipy.stats", "seaborn", "transformers", "timm"}


def test_help_and_list_import_nothing_that_only_work_needs():
    code = (
        "import contextlib, io, sys\n"
        "from analyses.command import _parser\n"
        "from app.cli import main\n"
        "from app.commands import SHIPPED, command_module\n"
        "with contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['list'])\n"
        "    for name in SHIPPED:\n"
        "        module = command_module(name)\n"
        "        if hasattr(module, 'command'):\n"
        "            _parser(module.command, name, True).format_help()\n"
        "from app.train import train_parser\n"
        "train_parser().format_help()\n"
        f"print(sorted({HEAVY} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_evaluate_prints_intervals_and_classes(checkpoint, capsys):
    assert main(["evaluate", str(checkpoint)]) == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert "[" in printed
    assert sum(" of " in line for line in printed.splitlines()) == 10


def test_evaluate_refuses_data_that_does_not_fit(checkpoint, tmp_path, capsys):
    assert main(["evaluate", str(checkpoint), "--data", "nothing"]) == 2
    assert "fashion-mnist" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "none")]) == 2
    assert "aft-lens list" in capsys.readouterr().err


def test_other_classes_devices_ports_and_roots_are_refused(checkpoint, tmp_path, capsys):
    for arguments, words in (
        (["evaluate", str(checkpoint), "--data", "fashion-mnist"], "number 0 is 'T-shirt/top', the model's '0'"),
        (["evaluate", str(checkpoint), "--device", "gpu"], "device 'gpu' cannot be used here"),
        (["keys", str(checkpoint), "--sample", "3", "--image", "x.png"], "image and sample exclude each other"),
        (["attention", str(checkpoint), "--grid", "[0,4]"], "a row and a column or more"),
        (["app", "--port", "99999"], "port must be 0 to 65535"),
        (["list", "--root", str(tmp_path / "none")], "root must be existing folders"),
        (["train", "--recipe", "digits-vit", "--start", str(checkpoint)], "the recipe with attention"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error():
    command = [sys.executable, "-c", BARE, "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_list_shows_one_line_each(checkpoint, capsys):
    assert main(["list", "--root", str(checkpoint.parent)]) == 0
    printed = capsys.readouterr().out
    for word in ("aft_conv_small_11_384", "folder:PATH", "digits-single", str(checkpoint)):
        assert word in printed


def test_unknown_commands_recipes_and_keys_are_refused(capsys):
    assert main(["fly"]) == 2
    assert "choose one of" in capsys.readouterr().err
    assert main(["train", "--recipe", "nope"]) == 2
    assert "digits-single" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["train", "--recipe", "digits-single", "--model.dpth", "3"])
    assert stop.value.code == 2


def test_print_config_shows_the_overridden_recipe(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--recipe", "digits-single", "--model.depth", "6", "--seed", "1", "--print_config"])
    printed = capsys.readouterr().out
    assert "depth: 6" in printed
    assert "position_bias: single" in printed
    assert "seed: 1" in printed


def test_a_bare_installation_trains_and_evaluates(tmp_path):
    arguments = ["train", "--recipe", "digits-single", *TINY, "--trainer.epochs=1", "--out", str(tmp_path), "--seed=1"]
    done = subprocess.run([sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["model", "data", "device", "wrote"]
    assert f"wrote {tmp_path / 'digits-single-seed1'}" in done.stdout
    told = r"epoch 1/1  train_loss [\d.]+  val_loss [\d.]+  val_accuracy [\d.]+  [\d.]+ s\n"
    assert re.fullmatch(told, done.stderr), "a line an epoch, no bar off a terminal, nothing of Lightning's"
    done = subprocess.run([sys.executable, "-c", BARE, "keys", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'aft-lens[analyses]'" in done.stderr
    again = ["evaluate", str(tmp_path / "digits-single-seed1"), "--images", "20"]
    done = subprocess.run([sys.executable, "-c", BARE, *again], capture_output=True, text=True, check=False)
    assert "accuracy" in done.stdout, done.stderr[-2000:]


def test_what_the_extras_have_is_asked_for_by_name(checkpoint, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "analyses.export", raising=False)
    assert main(["export", str(checkpoint)]) == 2
    assert "pip install 'aft-lens[export]'" in capsys.readouterr().err
    monkeypatch.setattr("app.serve.find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert "streamlit is not installed; run: pip install 'aft-lens[app]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", ".."])
def test_a_runs_name_stays_below_its_folder(name, tmp_path, capsys):
    assert main(["train", "--recipe", "digits-single", "--name", name, "--out", str(tmp_path / "runs")]) == 2
    assert "name must be that of a folder below --out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
