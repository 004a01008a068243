"""A model as pages list it: what is known of it before it is opened."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A checkpoint, a run, or another library's ViT."""

    label: str
    """Its name in pickers and addresses."""
    source: str
    """Its folder, or word:NAME as `open_source` takes it."""
    revision: str = ""
    """Changes when its files do."""
    mixer: str = ""
    """What it mixes tokens by, in words."""
    looks: str = ""
    """How it is looked at: "offset" (AFT-conv), "pair" (AFT-full, AFT-local), "attention" (a ViT); else empty."""
    layers: int = 0
    heads: int = 0
    window: int = 0
    """Side of AFT-conv's window, in patches."""
    grid: int = 0
    """Side of the grid that it was trained on, in patches."""
    data: str = ""
    accuracy: float | None = None
    """On held-out images, as its run has noted it, 0 to 1."""
    parameters: int = 0
    kept: int = 0
    """Offsets that all its heads keep together, where it is pruned; else 0."""
    origin: str = "checkpoint"
    """"shipped", "checkpoint", "run", "in progress", or a library's name."""
    kind: str = "vision"
    """"vision", or "decoder" of pixels or text."""
    problem: str = ""
    """Why it cannot be looked at; empty for one that can."""

    @property
    def pruned(self) -> bool:
        """Whether its biases are indexed."""
        return self.kept > 0

    @property
    def line(self) -> str:
        """Its architecture and data in a line."""
        window = f", {self.window} × {self.window} window" if self.looks == "offset" else ""
        pruned = ", pruned to indexing" if self.pruned else ""
        data = f" · {self.data}" if self.data else ""
        if self.kind == "decoder":
            window = f", window {self.window}" if self.window else ""
            return f"{self.mixer} decoder · {self.layers} layers{window}{data}"
        return f"{self.mixer}{pruned} · {self.layers} layers × {self.heads} heads{window}{data}"
