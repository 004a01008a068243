"""What one target reads from each source: effective weights exp(K + w) over their sum, averaged over channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure

from aft_lens.checkpoint import DecoderCheckpoint
from aft_lens.data.sequences import Pixels, Stream
from analyses.decoders.offsets import by_offset, groups, window_of, words
from analyses.decoders.read import opened, part_of
from analyses.result import Result, Table
from analyses.theme import SERIES, axes, layout

WORD_ENDS = (9, 10, 32)
"""Bytes that part words: tab, newline, space."""
MOST_WORDS = 5
"""Words back that are told apart."""


@dataclass(frozen=True)
class TargetWeights(Result):
    """Shares of a target's weight by source offset, mean over sequences and channels."""

    name = "weights"

    source: str
    data: str
    grid: tuple[int, ...]
    target: int
    windows: int
    share: Float[np.ndarray, "layer offset"]
    """By offset 0 … target; every layer sums to 1."""
    window: int
    """Offsets that have a bias; those beyond weigh by their keys alone."""
    words_back: Float[np.ndarray, "layer word"] | None
    """In text, by words back: the target's own, the ones before, and all further."""

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """A panel a layer."""
        return (2.0 * len(self.share) + 0.6, 2.2) if self.grid else (8.0, 3.6)

    def record(self) -> dict[str, Any]:
        """All shares."""
        return {
            "source": self.source, "data": self.data, "grid": self.grid, "target": self.target,
            "windows": self.windows, "window": self.window, "in_window": self.share[:, : self.window].sum(1),
            "words_back": self.words_back, "share": self.share,
        }  # fmt: skip

    def table(self) -> Table:
        """A layer a row: shares of groups of offsets, and the largest one."""
        parts = groups(self.window, self.grid)
        rows = []
        for layer, share in enumerate(self.share):
            shares = [share[[each for each in offsets if each < len(share)]].sum() for offsets in parts.values()]
            best = int(share.argmax())
            rows.append([
                str(layer), *(f"{100 * each:.1f} %" for each in shares),
                f"{100 * share[self.window :].sum():.1f} %", f"{words(best, self.grid)} {100 * share[best]:.1f} %",
            ])  # fmt: skip
        columns = ("layer", *parts, "beyond the window", "most")
        note = ""
        if self.words_back is not None:
            heads = ["own word", *(f"{back} back" for back in range(1, MOST_WORDS)), "further"]
            note = (
                "by words:\n"
                + Table(
                    ["layer", *heads],
                    [[str(i), *(f"{100 * each:.1f} %" for each in row)] for i, row in enumerate(self.words_back)],
                ).text()
            )
        title = f"{self.source}: weights of target {self.target} over {self.windows} sequences of {self.data}"
        return Table(columns, rows, title, note)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Shares around the target in an image; against the offset in text."""
        if not self.grid:
            axis = figure.subplots()
            for layer, share in enumerate(self.share):
                axis.semilogy(share, label=f"layer {layer}", lw=1, color=SERIES[layer % len(SERIES)])
            axis.set_xlabel("offset, symbols back")
            axis.set_ylabel("share of the weight")
            axis.legend(fontsize=7)
            return
        shown = None
        top = float(self.share.max())
        for layer, axis in enumerate(np.ravel(figure.subplots(1, len(self.share)))):
            shown = axis.imshow(self._picture(layer), cmap="magma", vmin=0, vmax=top)
            axis.set_title(f"layer {layer}", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        if shown is not None:
            figure.colorbar(shown, ax=figure.axes, label="share", shrink=0.8)

    def interactive(self) -> go.Figure:
        """Shares by offset with its words under the pointer."""
        labels = [words(offset, self.grid) for offset in range(self.share.shape[1])]
        figure = go.Figure()
        for layer, share in enumerate(self.share):
            figure.add_scatter(
                x=list(range(len(share))), y=share, name=f"layer {layer}", customdata=labels,
                hovertemplate="%{customdata}: <b>%{y:.2%}</b>", line={"color": SERIES[layer % len(SERIES)]},
            )  # fmt: skip
        figure.update_xaxes(title="offset, symbols back", range=[-0.5, min(len(labels), 2 * self.window)])
        figure.update_yaxes(title="share of the weight", tickformat=".0%")
        return layout(axes(figure), height=380)

    def _picture(self, layer: int) -> Float[np.ndarray, "y x"]:
        """Shares by place in the image; channels of a pixel are summed, what comes later is blank."""
        rows, columns, channels = self.grid
        flat = np.full(rows * columns * channels, np.nan)
        flat[: self.target + 1] = self.share[layer][::-1]
        pixels = flat.reshape(rows, columns, channels)
        return np.where(np.isnan(pixels).all(2), np.nan, np.nansum(pixels, 2))


@torch.no_grad()
def target_weights(
    loaded: DecoderCheckpoint, split: Pixels | Stream, *, target: int | None = None, windows: int = 64, data: str = ""
) -> TargetWeights:
    """The weights of one target over the first sequences of a split.

    Raises ValueError for a mixer without position biases and a target that the sequences have not.
    """
    model, length = loaded.model, loaded.config.length
    spot = 3 * length // 4 if target is None else target
    if not 0 <= spot < length:
        raise ValueError(f"target must be from 0 to {length - 1}, got {spot}")
    w, window = by_offset(model), window_of(model)
    sums = [torch.zeros(spot + 1, dtype=torch.float64) for _ in w]
    by_word = torch.zeros(len(w), MOST_WORDS + 1, dtype=torch.float64)
    count, grid = 0, tuple(loaded.data.get("grid") or ())
    for batch in split.to(model.pos_embed.device).windows(32, limit=windows):
        inputs = batch.symbols[:, : spot + 1]
        back = _words_back(inputs) if not grid else None
        for layer, share in enumerate(_shares(model, inputs, w, window)):
            sums[layer] += share.sum(0).flip(0).cpu()
            if back is not None:
                for word in range(MOST_WORDS + 1):
                    by_word[layer, word] += float(share[back == word].sum())
        count += len(inputs)
    shares = torch.stack(sums).div(count).numpy()
    return TargetWeights(
        loaded.path.name, data, grid, spot, count, shares, window, None if grid else by_word.div(count).numpy()
    )


def _shares(model: Any, inputs: torch.Tensor, w: Sequence[torch.Tensor], window: int) -> list[torch.Tensor]:
    """Weights `b s` of the last position of each layer, averaged over channels."""
    found: list[torch.Tensor] = []
    spot = inputs.shape[1] - 1
    hooks = []
    for block, bias in zip(model.blocks, w, strict=True):
        near = min(window, spot + 1)

        def keep(_module: Any, _inputs: Any, key: torch.Tensor, near: int = near, bias: torch.Tensor = bias) -> None:
            log = key.double()
            log[:, spot + 1 - near :] += bias[spot, :near].flip(0).unsqueeze(-1)
            found.append(log.softmax(1).mean(2))

        hooks.append(block.mixer.hook_key.register_forward_hook(keep))
    try:
        model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _words_back(inputs: torch.Tensor) -> torch.Tensor:
    """Words between each source and the target `b s`; a space belongs to the word before it."""
    ends = torch.isin(inputs, torch.tensor(WORD_ENDS, device=inputs.device))
    after = ends[:, :-1].flip(1).cumsum(1).flip(1)
    return torch.nn.functional.pad(after, (0, 1)).clamp(max=MOST_WORDS)


def of_checkpoint(
    checkpoint: Path, *, target: int | None, windows: int, split: str, data: str | None, root: str | None, device: str,
    **_: Any,
) -> TargetWeights:  # fmt: skip
    """`target_weights` of a checkpoint on its own data, or other data that fits."""
    loaded, source = opened(checkpoint, data, root, device)
    return target_weights(loaded, part_of(source, split), target=target, windows=windows, data=source.name)
