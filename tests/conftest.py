"""Runtime checks of annotated shapes and types; kernels go without, as Triton compiles what it finds behind a name."""

from pathlib import Path

from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "aft_lens"
OPERATORS = [f"aft_lens.ops.{path.stem}" for path in sorted((PACKAGE / "ops").glob("[!_]*.py"))]

install_import_hook([*OPERATORS, "aft_lens.ops.forms", "aft_lens.layers"], "beartype.beartype")
