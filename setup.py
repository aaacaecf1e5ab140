"""What a build adds to pyproject.toml: the Python of proto/, which is generated and not committed.

`build_py` does it for a wheel, and beside the sources for an editable installation; `python setup.py protos` does it
beside the sources alone.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
PROTO = ROOT / "proto"


def generate(target: Path) -> None:
    """Write messages, their types and stubs of each .proto below a directory, in the packages that they name."""
    # Imported on use: metadata of the package is asked for where there is no compiler.
    from grpc_tools import protoc

    for source in sorted(PROTO.rglob("*.proto")):
        (target / source.relative_to(PROTO)).parent.mkdir(parents=True, exist_ok=True)
        outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
        well_known = resources.files("grpc_tools") / "_proto"
        if protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", *outputs, str(source)]) != 0:
            raise SystemExit(f"{source.relative_to(ROOT)} cannot be compiled; the lines above say why.")


class BuildWithProtos(build_py):
    """The sources, and what is generated."""

    def run(self) -> None:
        """Generate into what is built; an editable installation imports it from beside its sources."""
        super().run()
        generate(ROOT if self.editable_mode else Path(self.build_lib))


class Protos(Command):
    """Generate beside the sources."""

    user_options: list[tuple[str, str, str]] = []

    def initialize_options(self) -> None:
        """It has none."""

    def finalize_options(self) -> None:
        """It has none."""

    def run(self) -> None:
        """Generate."""
        generate(ROOT)


setup(cmdclass={"build_py": BuildWithProtos, "protos": Protos})
