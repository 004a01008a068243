"""What a page shows of what others wrote: names as text, folders that were given alone, rows in words, no traceback."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.data.batches import MOST_BYTES, batches
from aft_lens.data.image import MAX_BYTES
from aft_lens.errors import InputError
from aft_lens.models import create_model
from app import places, serve, trainings
from app.back import listing, opened
from app.limits import MAX_BYTES as MOST_UPLOAD
from app.runs import find_runs, read_rows
from app.words import plain

MAIN = Path(__file__).parents[1] / "app/main.py"
RECORD = {"name": "digits", "classes": [str(i) for i in range(10)], "mean": [0.3], "std": [0.37], "in_chans": 1,
          "img_size": 8}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("default")


def saved(folder, **data):
    torch.manual_seed(0)
    model = create_model("aft_conv_digits", depth=1, embed_dim=16, num_heads=2)
    rows = [{"epoch": 0, "val_accuracy": 0.5}]
    return save_checkpoint(folder, model, data=RECORD | data, recipe={"epochs": 1}, seed=0, metrics=rows)


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "roots 12:30"
    folder.mkdir()
    monkeypatch.setenv(places.ROOTS_VARIABLE, f'["{folder}"]')
    monkeypatch.chdir(folder)
    return folder


def page(name):
    test = AppTest.from_file(str(MAIN), default_timeout=120).switch_page(f"screens/{name}.py").run()
    assert not test.exception, [item.value for item in test.exception]
    return test


def test_roots_may_have_colons_in_their_names(root, monkeypatch):
    assert places.roots() == [root]
    monkeypatch.setenv(places.ROOTS_VARIABLE, f"a{os.pathsep}b")
    assert places.roots() == [Path("a"), Path("b")]


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("![x](http://evil/x.png)", ("![", "](", "http:")),
        ("[x](http://evil)", ("[x]", "http:")),
        ("see https://evil and www.evil.org", ("https:", "www.")),
        ("a@evil.org", ("a@",)),
        (":material/home: :red[x]", (":m", ":r")),
        ("`code` **bold** $x$ <b>", ("`c", "**b", "$x$", " <b>")),
        ("# title", ("# t",)),
        ("\x1b[31m", ("\x1b",)),
    ],
)
def test_what_would_be_markdown_is_escaped(text, forbidden):
    shown = plain(text)
    for part in forbidden:
        assert part not in shown.replace("\\" + part[0], "")
    assert plain("Layer 1, head 1, offset Δy -2, Δx +3") == "Layer 1, head 1, offset Δy -2, Δx +3"


@pytest.mark.parametrize("name", ["overview", "compare", "training", "pruning"])
def test_a_bad_folder_is_a_line_beside_the_good_ones(root, name):
    saved(root / "good")
    for number, content in enumerate(("a: &a [*a]", "model: {depth: 1000000000}", "\x00", "[" * 9999, "data: 3")):
        bad = saved(root / f"bad{number}")
        (bad / "config.yaml").write_text(content)
        (bad / "metrics.csv").write_bytes(b"epoch,a\n\xff,1\n" if number % 2 else b"epoch,a\n1e400,nan\n-3,1\n,\n")
    (saved(root / "no metrics") / "metrics.csv").unlink()
    test = page(name)
    assert not test.error, [item.value for item in test.error]
    if name == "overview":
        said = test.table[0].value.to_string()
        assert all(f"bad{number}" in said for number in range(5))
        assert said.count("cannot be looked at") >= 5


def test_runs_take_any_table(root):
    for content in (b"", b"\xff", b"epoch\n1e400\nnan\n-1\n9e99\n", b'a,b\n"', b"epoch,x\n0," + b"9" * 200_000):
        path = saved(root / "run")
        (path / "metrics.csv").write_bytes(content)
        run = find_runs([root])["run"]
        assert run.problem or isinstance(read_rows(path), list)


def test_a_record_leads_to_no_folder_outside_and_fetches_nothing(root, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    for name in ("ant", "bee"):
        (elsewhere / name).mkdir(parents=True)
        for number in range(10):
            Image.effect_noise((8, 8), 50).save(elsewhere / name / f"{number}.png")
    for name in (f"folder:{elsewhere}", "folder:/", "folder:../elsewhere", f"folder:{root}/../elsewhere"):
        with pytest.raises(FileNotFoundError, match="may not be shown here; start the app with --data"):
            opened.data(name, 8)
    monkeypatch.setenv(places.DATA_VARIABLE, f'["{elsewhere}"]')
    assert len(opened.data(f"folder:{elsewhere}", 8).classes) == 2

    def fetched(*_args, **_kwargs):
        pytest.fail("fetched")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetched)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", fetched)
    with pytest.raises(FileNotFoundError, match="nothing is fetched from here"):
        opened.data("cifar10", 8)


def test_a_path_leads_to_no_model_outside_and_uploads_have_one_limit(root, tmp_path):
    for source in (str(tmp_path), "../", "/", f"{root}/../elsewhere"):
        with pytest.raises(ValueError, match="may not be shown here; start the app with --root"):
            listing.described(source)
    assert "may not be shown here" in listing.described(f"hf:{tmp_path}").problem
    assert MOST_UPLOAD == MAX_BYTES


def test_runs_are_started_by_this_machine_alone(root, monkeypatch):
    called = []
    monkeypatch.setattr(serve, "start", lambda *_, write, **__: called.append(write) or pytest.fail("started"))
    monkeypatch.setattr(serve, "taken", lambda *_: False)
    for options in ({}, {"hosts": "lens.example.org"}, {"address": "0.0.0.0"}, {"train": False}):
        with pytest.raises(pytest.fail.Exception):
            serve.command(port=1, **options)
    assert called == [True, False, False, False]
    monkeypatch.setenv(places.WRITE_VARIABLE, "0")
    with pytest.raises(ValueError, match="started from a terminal here"):
        trainings.begin("x", [["list"]])
    monkeypatch.setenv(places.WRITE_VARIABLE, "1")
    for name in ("../x", "", ".hidden", "a/b"):
        with pytest.raises(ValueError, match="must be that of a folder"):
            trainings.begin(name, [["list"]])


def test_images_beyond_the_budget_are_refused():
    data = load_data("digits", img_size=1024)
    assert MOST_BYTES < 360 * 1024**2 * 4
    with pytest.raises(InputError, match="more than a page may"):
        batches(data, 360)


def test_names_of_this_machine_alone_are_let_in(monkeypatch):
    called = []
    monkeypatch.setattr(serve.subprocess, "Popen", lambda call, **_: called.append(call))
    serve.start(None, 1)
    serve.start(None, 1, "0.0.0.0", hosts=["lens.example.org"])
    own, network = ([word.partition("=")[2] for word in call if "allowedHosts" in word] for call in called)
    assert own == list(serve.LOCAL)
    assert set(own) < set(network)
    assert "lens.example.org" in network
    assert "*" not in network
    for setting in ("client.showErrorDetails=none", "client.showErrorLinks=false", "server.enableXsrfProtection=true"):
        assert f"--{setting}" in called[0]


def test_a_killed_command_takes_its_server_along(tmp_path):
    port = serve.free_port()
    command = [sys.executable, "-m", "app.cli", "app", f"--port={port}", f"--root=[{tmp_path}]"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://localhost:{port}/_stcore/health"
    _until(lambda: _answers(address))
    process.send_signal(signal.SIGKILL)
    process.wait()
    _until(lambda: not serve.taken("localhost", port))


def _answers(address):
    try:
        return urllib.request.urlopen(address, timeout=5).status == 200
    except OSError:
        return False


def _until(true):
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
