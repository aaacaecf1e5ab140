"""What people are told to type is what the command line takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.commands import complaint, shown
from tests.conftest import ROOT

PAGES = sorted(
    path for pattern in ("*.md", "docs/**/*.md", "monitoring/**/*.md", "charts/**/*.md") for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_that_a_page_shows_is_one_that_is_taken(page: Path) -> None:
    lines = shown(page.read_text())
    wrong = [f"{line}: {why}" for line in lines if (why := complaint(line))]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("plinth", None),
        ("plinth status", None),
        ("plinth status $ENV --no-cache", None),
        ("plinth images list|pull ENV", None),
        ("plinth collections diff ENV [--json]", None),
        ("plinth starus ENV", "there is no `plinth starus`"),
        ("plinth status ENV --color", "No such option: --color"),
        ("plinth status ENV [--color]", "No such option: --color"),
        ("plinth status --json", "env is missing"),
        ("plinth status ENV OTHER", "OTHER is one word too many"),
        ("plinth images list|shake ENV", "there is no `plinth images shake`"),
        ("plinth load ENV --profile", "requires an argument"),
    ],
)
def test_a_line_that_is_not_taken_is_found(line: str, why: str | None) -> None:
    found = complaint(line)
    assert found is None if why is None else found is not None and why in found


def test_command_lines_are_found_in_sentences_tables_and_blocks() -> None:
    page = (
        "Run `plinth up ENV`:\n\n    plinth down ENV --yes  # stop\n\n```sh\nplinth status ENV\n```\n| `plinth a\\|b` |"
    )
    assert shown(page) == ["plinth up ENV", "plinth a|b", "plinth down ENV --yes", "plinth status ENV"]
    assert sum(len(shown(path.read_text())) for path in PAGES) > 60


# Pages for developers name files of the tree; a name in capitals stands for any.
FOR_DEVELOPERS = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "adr").glob("*.md"))]
TOPS = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")))
FILE = re.compile(rf"`((?:{TOPS})/[\w./-]*)`")
LINK = re.compile(r"\]\(([^)#:\s]+)\)")


@pytest.mark.parametrize("page", FOR_DEVELOPERS, ids=lambda page: page.name)
def test_every_file_that_a_page_for_developers_names_exists(page: Path) -> None:
    text = page.read_text()
    named = [ROOT / path for path in FILE.findall(text) if "NAME" not in path]
    linked = [page.parent / path for path in LINK.findall(text)]
    assert named or linked
    assert [str(path) for path in (*named, *linked) if not path.exists()] == []


# A secret as an argument, which every user of the machine can read, or typed into a line that the shell remembers.
IN_ARGUMENTS = re.compile(
    r"config set --secret|--from-literal=|PGPASSWORD=(?!\$\(cat|wrong)\S|redis-cli .*-a |"
    r"curl [^|]*(-u|--user) |-H ['\"]?api-key|header ['\"]api-key|export \w*(DSN|KEY|PASSWORD|TOKEN|SECRET)\w*=",
    re.IGNORECASE,
)


def test_no_advice_puts_a_secret_into_an_argument_or_the_history() -> None:
    kinds = ("*.md", "*.txt", "*.py", "*.sh", "*.ts", "*.tpl", "*.yaml", "*.yml", "*.j2")
    trees = [
        ROOT / name
        for name in ("plinth", "docs", "monitoring", "charts", "config", "examples", "load", "scripts", "stacks")
    ]
    files = [*ROOT.glob("*.md"), *(path for tree in trees for kind in kinds for path in tree.rglob(kind))]
    advice = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if IN_ARGUMENTS.search(line)
    }
    assert advice == set()
