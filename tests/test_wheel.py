"""A wheel, built and installed, does its work from an empty folder in which a user has an app.py of their own."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest
from browsers import ARGUMENTS, browser_path
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import expect, sync_playwright

ROOT = Path(__file__).parents[1]
SOURCES = ("aft_lens", "analyses", "app", "checkpoints", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md",
           "LICENSE")  # fmt: skip
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
SHORT_DEMO = """
import sys
from app import cli, demo
shipped = demo.read_recipe
short = ("model.depth=2", "model.embed_dim=16", "trainer.epochs=1", "trainer.limit_batches=4")
demo.read_recipe = lambda name, *changes: shipped(name, *changes, *short)
sys.exit(cli.main(["demo", "--no-serve"]))
"""
"""The whole demo, its one training cut short."""
WHERE = """
import aft_lens
from analyses import provenance
from analyses.pruning.evidence.publish import read_publication
sweeps = read_publication("digits").sweeps
print(aft_lens.__file__, provenance.RESULTS, provenance.PUBLISHED, len(sweeps), sep="\\n")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The programs of an environment that has the wheel, and all else from the one that runs the tests."""
    room = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, room / "source" / name, ignore=shutil.ignore_patterns("__pycache__", "fashion-*"))
        else:
            shutil.copy(source, room / "source" / name)
    done = subprocess.run(
        [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(room), str(room / "source")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    venv.create(room / "venv", with_pip=False)
    python = room / "venv" / "bin" / "python"
    (wheel,) = room.glob("*.whl")
    subprocess.run([*PIP, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    Path(packages.stdout.strip(), "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python.parent


@pytest.fixture
def empty(tmp_path):
    """Where the user stands: nothing but modules that are called as ours."""
    for name in ("app.py", "analyses.py"):
        (tmp_path / name).write_text("raise SystemExit('a user\\'s own module was imported')\n")
    return tmp_path


def run(installed, folder, *words, program="aft-lens"):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [installed / program, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--version"], "aft-lens 0."),
        (["study", "claims-table"], "| AFT-conv 11/16"),
        (["bias", "digits-entropy"], "wrote reports/digits-entropy/bias.svg"),
    ],
    ids=lambda words: "-".join(words) if isinstance(words, list) else "",
)
def test_commands(installed, empty, words, printed):
    done = run(installed, empty, *words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert printed in done.stdout


def test_it_is_the_wheel_that_runs_and_it_writes_nothing_into_itself(installed, empty):
    done = run(installed, empty, "-P", "-c", WHERE, program="python")
    assert done.returncode == 0, done.stderr[-2000:]
    file, results, published, plan = done.stdout.split()
    assert plan == "4"
    packages = installed.parent / "lib"
    assert Path(file).is_relative_to(packages)
    assert Path(published).is_relative_to(packages)
    assert results == "results"
    before = {path for path in packages.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    done = run(installed, empty, "bench", "gpu_table")
    assert "| Compared" in done.stdout
    assert (empty / "results" / "gpu_h100.svg").is_file()
    after = {path for path in packages.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    assert before == after


def test_demo(installed, empty):
    done = run(installed, empty, "-P", "-c", SHORT_DEMO, program="python")
    assert done.returncode == 0, done.stderr[-2000:]
    assert (empty / "reports" / "demo" / "index.html").is_file()


def test_app(installed, empty):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    process = subprocess.Popen(
        [installed / "aft-lens", "app", "--port", "0"], cwd=empty, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        address = process.stdout.readline().split()[4]
        with sync_playwright() as playwright:
            path = browser_path(playwright.chromium.executable_path)
            browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
            tab = browser.new_page()
            for _ in range(300):
                try:
                    tab.goto(address)
                    break
                except PlaywrightError:
                    assert process.poll() is None, process.stderr.read()
                    time.sleep(0.2)
            expect(tab.get_by_role("heading", name="Overview", exact=True)).to_be_visible(timeout=120_000)
            tab.goto(f"{address}/compare?a=digits-single&b=digits-conv")
            expect(tab.locator(".side .value").first).to_contain_text("digits-single: exp(w)", timeout=120_000)
            browser.close()
    finally:
        process.terminate()
        process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGTERM
