"""Compile tiny models in a process without a runtime checker, which the compiler cannot trace, and say what came."""

import json
import sys
import warnings
from functools import partial
from unittest import mock

import torch
from torch._dynamo.testing import CompileCounter

from aft_lens.models import VisionModel, create_model
from aft_lens.ops.kernels import dispatch
from aft_lens.training import compile_blocks
from aft_lens.training.gumbel_health import single_positions


def compiled(**changes) -> tuple[VisionModel, VisionModel, CompileCounter]:
    """A model, the same one compiled, and what counts its graphs. The limit on graphs starts below what is needed."""
    torch.compiler.reset()
    torch._dynamo.config.recompile_limit = 1
    plain = create_model("aft_conv_digits", embed_dim=8, num_heads=2, window_size=3, **changes)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter)
    model = create_model("aft_conv_digits", embed_dim=8, num_heads=2, window_size=3, **changes)
    model.load_state_dict(plain.state_dict())
    counter = CompileCounter()
    counting = partial(torch.nn.Module.compile, backend=counter)
    with mock.patch("torch.nn.Module.compile", lambda block, mode: counting(block)):
        compile_blocks(model)
    return plain, model, counter


def logits(model: VisionModel, seed: int = 0) -> torch.Tensor:
    """What a model makes of an image, with random draws of its own seed."""
    image = torch.linspace(-1, 1, 2 * 64).reshape(2, 1, 8, 8)
    torch.manual_seed(seed)
    return model(image)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference."""
    return float((found - expected).detach().abs().max())


def blocks(depth: int, drop_path: float) -> dict[str, object]:
    """Graphs of a training step and of evaluating, with the error and whether state-dict names stayed."""
    plain, model, counter = compiled(depth=depth, drop_path=drop_path)
    found, expected = logits(model), logits(plain)
    found.sum().backward()
    trained = counter.frame_count
    logits(model.eval())
    return {
        "training": trained,
        "evaluation": counter.frame_count - trained,
        "error": distance(found, expected),
        "same_names": list(model.state_dict()) == list(plain.state_dict()),
    }


def temperatures() -> dict[str, object]:
    """Graphs after steps of one temperature and of others, the error, and how much a temperature changes."""
    plain, model, counter = compiled(depth=2, position_bias="single")
    graphs, outputs, errors = [], [], []
    for temperature in (0.5, 0.4, 5.0):
        for bias in (*single_positions(plain), *single_positions(model)):
            bias.temperature = temperature
        outputs.append(logits(model))
        outputs[-1].sum().backward()
        errors.append(distance(outputs[-1], logits(plain)))
        graphs.append(counter.frame_count)
    return {"graphs": graphs, "error": max(errors), "change": distance(outputs[-1], outputs[0])}


class Exporting(torch.nn.Module):
    """1 while being exported, else 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of x's shape."""
        return torch.ones_like(x) if dispatch.exporting() else torch.zeros_like(x)


def exporting() -> dict[str, float]:
    """What `dispatch.exporting` says when a module is called, compiled and exported."""
    module, x = Exporting(), torch.zeros(1)
    exported = {
        f"strict {strict}": torch.export.export(module, (x,), strict=bool(strict)).module() for strict in (0, 1)
    }
    compiled_too = {"called": module, "compiled": torch.compile(module, backend="eager", fullgraph=True), **exported}
    return {name: float(run(x)) for name, run in compiled_too.items()}


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=r"The \.grad attribute of a Tensor")  # the compiler looks at any input's
    found = {f"{depth} {rate}": blocks(depth, rate) for depth, rate in ((2, 0.0), (4, 0.0), (4, 0.1))}
    json.dump({"blocks": found, "temperatures": temperatures(), "exporting": exporting()}, sys.stdout)
