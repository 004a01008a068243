"""One thread a process, and runtime checks of annotated shapes and types.

Kernels go without checks, as Triton compiles what it finds behind a name.
"""

import os
from pathlib import Path

from jaxtyping import install_import_hook

# Before anything imports torch. Models are tiny here: threads cost more than they bring, and processes that share two
# cores wait for each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")
PACKAGE = Path(__file__).parents[1] / "aft_lens"
OPERATORS = [f"aft_lens.ops.{path.stem}" for path in sorted((PACKAGE / "ops").glob("[!_]*.py"))]

install_import_hook([*OPERATORS, "aft_lens.ops.forms", "aft_lens.layers"], "beartype.beartype")
