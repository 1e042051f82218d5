"""The build hook that puts compiled kernels into a wheel, which then is one of this Python and this platform.

It takes minutes, so it runs only where ``HATCH_BUILD_HOOK_ENABLE_CUSTOM=1`` is set (`make wheel`). Any other wheel is
pure Python, and its kernels are compiled at the first call.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags


def tag() -> str:
    """Return the wheel's tag. The machine code calls Numba alone, so it runs where Numba does: manylinux_2_17."""
    python = next(sys_tags())
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    if platform.startswith("linux_"):
        platform = f"manylinux_2_17_{platform.removeprefix('linux_')}"
    return f"{python.interpreter}-{python.abi}-{platform}"


class KernelsHook(BuildHookInterface):
    """Compiles the kernels by calling the public functions from the sources that are packed."""

    def dependencies(self) -> list[str]:
        core = self.metadata.core
        return [*core.dependencies, *core.optional_dependencies["sklearn"]]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory()
        environment = os.environ | {"PYTHONPATH": str(Path(self.root) / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, "-m", "crossent.build_kernels", self._folder.name], env=environment, check=True)
        build_data["pure_python"] = False
        build_data["tag"] = tag()
        build_data["force_include"][self._folder.name] = "crossent/kernels/machine_code"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()
