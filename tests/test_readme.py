"""The commands and the Python of README and guide, run as they stand there; training is cut short."""

import re
import shlex
from pathlib import Path

import pytest

from app.cli import main
from app.train import train_parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
README = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = re.findall(r"<!-- run -->\n```console\n(.*?)```", README, re.S)
COMMANDS = list(dict.fromkeys(re.findall(r"^\$ aft-lens (.*)$", "".join(BLOCKS), re.M)))
PYTHON = [(page.stem, code) for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)]
SHORT = ["--trainer.limit_batches=2", "--trainer.epochs=1", "--trainer.accelerator=cpu"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.:FutureWarning"),  # Lightning with this torch
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory:UserWarning"),  # Lightning: the state folder is ours
    pytest.mark.filterwarnings("ignore:.*hardening to one position:UserWarning"),  # two batches are no training
]


def test_the_readme_shows_every_job():
    jobs = {command.split()[0] for command in COMMANDS}
    assert jobs == {
        "train", "evaluate", "bias", "keys", "attention", "attend", "scan", "locality", "match", "explain", "ablate",
        "knockout", "transfer", "prune", "complete", "sample", "decoder", "compact", "qk",
    }  # fmt: skip
    assert not re.search(r"@[A-Z]+@", README)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """One folder for all commands: some go on with what others wrote."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "checkpoints").symlink_to(ROOT / "checkpoints")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, room, monkeypatch, capsys):
    monkeypatch.chdir(room)
    arguments = shlex.split(command)
    shown = _printed(command)
    assert main([*arguments, *(SHORT if arguments[0] == "train" else [])]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert shown, "the README shows what the command prints"
    for line in shown:  # what is shown begins as what is printed; figures may differ from machine to machine
        start = " ".join(re.split(r"[\d.]", line, maxsplit=1)[0].split())
        assert start in printed, line


def test_options_it_names_exist():
    options = {action.dest for action in train_parser()._actions}
    named = set(re.findall(r"--((?:model|data|trainer|optim|sparsity)\.\w+)", README))
    assert named
    assert named <= options


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("page", "code"), PYTHON, ids=[f"{page}-{number}" for number, (page, _) in enumerate(PYTHON)])
def test_python_example(page, code, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(code, scope)
    if "maps" in scope:
        assert scope["maps"].maps.ndim == 4
        assert scope["ladder"].rows[-1].keep == 1
    if "print(" in code:
        assert "change (points) [95 %]" in capsys.readouterr().out


def _printed(command: str) -> list[str]:
    """The lines shown below a command."""
    after = README.split(f"$ aft-lens {command}\n", 1)[1]
    return [line for line in re.split(r"^(?:\$ |```)", after, maxsplit=1, flags=re.M)[0].splitlines() if line]
