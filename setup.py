"""Puts the checkpoints that ship into a wheel; everything else about the build is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = "digits-*"
"""Of checkpoints/: small enough for every installation."""


class Build(build_py):
    """Copies them beside the code, where `aft_lens.checkpoint.SHIPPED` looks first."""

    def run(self) -> None:
        """An editable installation reads them where they are."""
        super().run()
        for folder in () if self.editable_mode else sorted(Path("checkpoints").glob(SHIPPED)):
            shutil.copytree(folder, Path(self.build_lib, "aft_lens", "checkpoints", folder.name), dirs_exist_ok=True)


setup(cmdclass={"build_py": Build})
