"""Reference pages that are generated from the code: docs/settings.md and docs/cli.md."""

from __future__ import annotations

from collections.abc import Mapping

from tools.documents.cli_reference import cli_page
from tools.documents.settings_reference import settings_page

__all__ = ["generated"]


def generated() -> Mapping[str, str]:
    """The content of every generated page, by its path below the project's root."""
    return {"docs/settings.md": settings_page(), "docs/cli.md": cli_page()}
