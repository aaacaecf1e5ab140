"""A repository on a server: its address, whether it answers, and what its error messages mean.

restic retries for up to fifteen minutes, whatever the reason; an error that no retry can fix is reported at once.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import httpx

from plinth.backup.session import Done, Work
from plinth.settings.repository_address import server
from plinth.system.http_client import client_for, proxy_variables
from plinth.system.managed_process import fixed_environment

ANSWER_S = 10.0
REGION = "AWS_DEFAULT_REGION"
_KEY_REFUSED = re.compile(
    r"request signature we calculated|SignatureDoesNotMatch|InvalidAccessKeyId|Access Key Id|Access ?Denied",
    re.IGNORECASE,
)
_LOGIN_REFUSED = re.compile(r"\b401\b|unauthorized", re.IGNORECASE)
_NO_BUCKET = re.compile(r"specified bucket does not exist|NoSuchBucket", re.IGNORECASE)


def with_login(location: str, environment: Mapping[str, str]) -> str:
    """Return the address of a rest-server's repository with its login: restic before 0.17 reads it only from there."""
    user, password = (environment.get(f"RESTIC_REST_{part}", "") for part in ("USERNAME", "PASSWORD"))
    scheme, separator, rest = location.partition("://")
    if not (user and separator and scheme.startswith("rest:")):
        return location
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def directory(location: str) -> Path | None:
    """Return the directory of a repository, or None for one on a server."""
    found = re.match(r"(?:local:)?(/.*)", location)
    return Path(found[1]) if found else None


def way(location: str) -> dict[str, str]:
    """Return the environment variables that restic needs to reach a repository: the user's proxy and SSH agent."""
    names = ("SSH_AUTH_SOCK",) if location.startswith("sftp:") else ()
    url = server(location)
    proxy = proxy_variables(url) if url else {}
    return proxy | {name: os.environ[name] for name in names if name in os.environ}


def silence(location: str, shown: str, ca_file: Path | None) -> str | None:
    """Return a message where the server of a repository does not answer; an answer that refuses counts as an answer."""
    url = server(location)
    if url is None:
        return None
    try:
        trusted = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except OSError as error:
        return f"No authority can be read for the server of {shown} ({error}); correct plinth:backup.ca_cert."
    try:
        with client_for(url, verify=trusted, timeout=ANSWER_S) as client:
            client.head(url)
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in why:
            return f"The server of {shown} is not trusted ({why}); name who signed for it in plinth:backup.ca_cert."
        return f"The server of {shown} does not answer ({why}); bring it back, or correct plinth:backup.repository."
    return None


def refusal(location: str, words: str) -> str | None:
    """Return a permanent error of a repository's server by restic's message, or None where a retry may help."""
    if location.startswith("rest:") and _LOGIN_REFUSED.search(words):
        return (
            f"The server of the repository {location} refuses the login; correct plinth:backup.rest, or let that user "
            "read and write there."
        )
    if not location.startswith("s3:"):
        return None
    if _NO_BUCKET.search(words):
        return f"There is no bucket for the repository {location}; make it first, or correct plinth:backup.repository."
    if _KEY_REFUSED.search(words):
        return (
            f"The server of the repository {location} refuses the key; correct plinth:backup.s3, or let that key read, "
            "write, list and delete there."
        )
    return None


def opened(
    work: Work,
    argv: Sequence[str],
    environment: Mapping[str, str],
    location: str,
    is_absent: Callable[[Done], bool],
) -> Done:
    """Run restic to open a repository, until it ends or the server refuses permanently."""
    found = _ask(work, argv, environment, location)
    if found.code == 0 or not is_absent(found) or REGION not in environment:
        return found
    # With a region given, restic does not query it, and so misses that there is no bucket: it would create one.
    asked = _ask(work, argv, {name: value for name, value in environment.items() if name != REGION}, location)
    return asked if refusal(location, asked.err) else found


def _ask(work: Work, argv: Sequence[str], environment: Mapping[str, str], location: str) -> Done:
    process = subprocess.Popen(
        argv,
        env=fixed_environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        pass_fds=(work.lock,),
    )
    assert process.stdout is not None  # noqa: S101 - both are pipes
    assert process.stderr is not None  # noqa: S101
    with process:
        said = []
        for line in process.stderr:
            said.append(line)
            if refusal(location, line):
                process.terminate()
        out = process.stdout.read()
    return Done(process.returncode, out, "".join(said))
