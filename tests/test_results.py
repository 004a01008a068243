"""Every result shows itself: record, table, figure, interactive figure, files, and what a notebook shows."""

import json
import shlex
import subprocess
import sys

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

from aft_lens.data import load_data
from aft_lens.extraction import AFTReader, PositionMap, Preprocessing, as_reader
from aft_lens.models import create_model
from analyses.attention import attention_maps
from analyses.attention_cost import AttentionCost
from analyses.attention_cost import Run as Pass
from analyses.bias import position_bias_maps
from analyses.built_in_positions import built_in_positions
from analyses.command import run
from analyses.digits_accuracy import RECIPES, DigitsAccuracy
from analyses.digits_accuracy import Run as Training
from analyses.explain import explain, plan_for
from analyses.keys import key_maps
from analyses.locality import Locality
from analyses.locality.metrics import head_locality
from analyses.maps.head_maps import HeadMaps
from analyses.maps.picture import draw, size
from analyses.match import Match
from analyses.match.atlas import atlas
from analyses.match.heads import common_frame, shaped_heads
from analyses.match.matching import match
from analyses.offset_maps import attention_offsets, bias_offsets
from analyses.provenance import commanded
from analyses.result import plain


def small(name, heads=2, **fields):
    torch.manual_seed(0)
    model = create_model(name, depth=2, embed_dim=16 * (heads > 2) + 16, num_heads=heads, **fields).eval()
    for key, parameter in model.named_parameters():
        if key.endswith("gamma"):
            torch.nn.init.normal_(parameter)
    return model


def images(count):
    torch.manual_seed(1)
    return [(torch.randn(count, 1, 8, 8), torch.arange(count) % 10)]


def explained(**chosen):
    reader = AFTReader(small("aft_conv_digits"))
    return explain(reader, images(4), images(6), plan=plan_for(reader, **chosen))


def matched():
    one, two = (bias_offsets(small("aft_conv_digits", position_bias=kind), kind) for kind in ("free", "default"))
    frame = common_frame(one, two)
    heads = [shaped_heads(maps, frame) for maps in (one, two)]
    return heads, Match(*heads, frame, "crop", (match(*heads, "correlation", draws=2),), 0)


def locality():
    reader = as_reader(small("vit_digits"))
    reader.preprocessing = Preprocessing((8, 8), (0.3,), (0.37,))
    vit = attention_offsets(reader, images=4, data="digits", resamples=3, seed=0)
    conv = bias_offsets(small("aft_conv_digits"), "conv")
    return Locality((head_locality(vit), head_locality(conv)), 1.5, "apart", False, 3, 0)


RESULTS = {
    "bias": lambda: position_bias_maps(small("aft_conv_digits")),
    "bias by target": lambda: position_bias_maps(small("aft_full_digits", 1)),
    "bias of many heads": lambda: position_bias_maps(small("aft_conv_digits", 32)),
    "attention": lambda: attention_maps(small("vit_digits"), [images(4)[0][0]]),
    "keys": lambda: key_maps(small("aft_conv_digits"), load_data("digits").test[0][0]),
    "attribution": lambda: key_maps(small("aft_conv_digits"), load_data("digits").test[0][0]).attributed,
    "positions": lambda: built_in_positions([PositionMap("layer", "bias", torch.randn(3, 5, 5), None)])[0],
    "explain": lambda: explained(layers=[0]),
    "explain by curves": lambda: explained(single=False, edits=["map", "no keys"], counts=[1, 4]),
    "locality": locality,
    "match": lambda: matched()[1],
    "atlas": lambda: atlas(matched()[0], components=2, clusters=2),
    "attention cost": lambda: AttentionCost(
        [Pass("plain", 10, 2.0, 5.0), Pass("streamed", 10, 2.2, 6.0), Pass("streamed", 10, 3.0, 4.0, True)], "m", "d"
    ),
    "digits accuracy": lambda: DigitsAccuracy([Training(name, 0, 0.9, 1.0) for name in RECIPES]),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_shows_itself(kind, tmp_path):
    result = RESULTS[kind]()
    table, record = result.table(), plain(result.record())
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert table.rows
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert str(result) == table.text()
    assert tuple(result.figure().get_size_inches()) == pytest.approx(result.size)
    assert isinstance(result.interactive(), go.Figure)
    assert result.interactive().data
    shown = result._repr_html_()
    assert "<img src=" in shown
    assert "<table>" in shown
    with commanded("aft-lens", kind, "--out", "a folder"):
        paths = result.save(tmp_path)
    stems = ["keys", "attribution"] if kind == "keys" else [result.name]
    assert [path.name for path in paths] == [f"{s}.{e}" for s in stems for e in ("json", "png", "svg", "html")]
    assert all(path.stat().st_size > 100 for path in paths)
    kept = json.loads(paths[0].read_text())
    assert kept == {"command": shlex.join(["aft-lens", kind, "--out", "a folder"]), **record}
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("layers", [1, 2, 6])
@pytest.mark.parametrize("far", [0.0, 1e6])
def test_a_colour_bar_s_label_is_within_the_figure(layers, far):
    maps = torch.randn(layers, 8, 7, 7).numpy()
    maps[0, 0, 0, 0] = far
    shown = HeadMaps(maps, "exp(w) − 1", by_offset=True, label="model")
    figure = Figure(figsize=size(shown), layout="constrained")
    draw(shown, figure, "Position biases")
    figure.draw_without_rendering()
    label = figure.axes[-1].yaxis.label
    assert ("own scale" in label.get_text()) == (far > 0)
    found, whole = label.get_window_extent(), figure.bbox
    assert whole.x0 <= found.x0 < found.x1 <= whole.x1
    assert whole.y0 <= found.y0 < found.y1 <= whole.y1


def test_analyses_leave_a_notebooks_backend_alone():
    code = (
        "import matplotlib; matplotlib.use('svg')\n"
        "import analyses.bias, analyses.keys, analyses.explain, analyses.locality, analyses.match\n"
        "print(matplotlib.get_backend())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["svg"]


def test_the_largest_heads_do_not_pale_the_others():
    result = position_bias_maps(small("aft_conv_digits"))
    result.maps[0, 0, 0, 0] = 1e6
    assert result.interactive().data[0].zmax == pytest.approx(np.median(np.abs(result.maps).max((2, 3))))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (False, True)),
        (["--plain"], (True, True)),
        (["--plain", "true"], (True, True)),
        (["--plain=false"], (False, True)),
        (["--no-plain"], (False, True)),
        (["--pretrained", "false"], (False, False)),
        (["--no-pretrained"], (False, False)),
        (["--pretrained", "--plain", "yes"], (True, True)),
    ],
)
def test_yes_and_no(words, expected):
    seen = []

    def command(source: str, plain: bool = False, pretrained: bool = True) -> None:
        """Look.

        Args:
            source: What.
            plain: Without correction.
            pretrained: With weights.
        """
        seen.append((source, plain, pretrained))

    run(command, ("aft-lens", "look"), ["here", *words])
    assert seen == [("here", *expected)]


def test_help_names_both_options(capsys):
    def command(plain: bool = False) -> None:
        """Look.

        Args:
            plain: Without correction.
        """

    with pytest.raises(SystemExit):
        run(command, ("aft-lens", "look"), ["--help"])
    printed = capsys.readouterr().out
    assert "--no-plain" in printed
    assert "Without correction." in printed
