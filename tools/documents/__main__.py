"""Write the generated reference pages: `python -m tools.documents`, or `make docs`."""

from __future__ import annotations

from pathlib import Path

from tools.documents import generated

ROOT = Path(__file__).parent.parent.parent


def main() -> None:
    """Write every page whose content has changed, and print its path."""
    for name, content in generated().items():
        path = ROOT / name
        if not path.is_file() or path.read_text() != content:
            path.write_text(content)
            print(f"wrote {name}")


main()
