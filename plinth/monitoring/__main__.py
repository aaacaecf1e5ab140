"""Write the generated files of monitoring/: `python -m plinth.monitoring`, or `make monitoring`."""

from __future__ import annotations

from plinth.monitoring.generate import generated
from plinth.settings.loader import project_root


def main() -> None:
    """Write every file whose content has changed, and print its name."""
    root = project_root()
    for name, content in generated(root).items():
        path = root / name
        if not path.is_file() or path.read_text() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            print(f"wrote {name}")


main()
