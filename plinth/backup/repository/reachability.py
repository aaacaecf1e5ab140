"""A repository on a server: where it is, whether it answers, and what its refusals mean.

restic tries for up to a quarter of an hour, whatever the reason; what no patience mends is said at once.
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
    """The address of a rest-server's repository with its login: restic before 0.17 takes it from there alone."""
    user, password = (environment.get(f"RESTIC_REST_{part}", "") for part in ("USERNAME", "PASSWORD"))
    scheme, separator, rest = location.partition("://")
    if not (user and separator and scheme.startswith("rest:")):
        return location
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def directory(location: str) -> Path | None:
    """The directory that a repository is in; None for one on a server."""
    found = re.match(r"(?:local:)?(/.*)", location)
    return Path(found[1]) if found else None


def way(location: str) -> dict[str, str]:
    """What of this process's environment restic needs on its way to a repository: the user's proxy, or their agent."""
    names = ("SSH_AUTH_SOCK",) if location.startswith("sftp:") else ()
    url = server(location)
    proxy = proxy_variables(url) if url else {}
    return proxy | {name: os.environ[name] for name in names if name in os.environ}


def silence(location: str, shown: str, ca_file: Path | None) -> str | None:
    """A sentence where the server of a repository does not answer at all; a refusal is an answer."""
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
    """What a repository's server refuses for good, by restic's words; None where trying again may help."""
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
    """Run restic on a repository that is to be opened, until it ends or the server refuses for good."""
    found = _ask(work, argv, environment, location)
    if found.code == 0 or not is_absent(found) or REGION not in environment:
        return found
    # Where it was told the region restic does not ask for it, and so misses that there is no bucket: it would make one.
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
