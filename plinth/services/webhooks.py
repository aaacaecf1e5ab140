"""Alertmanager's receivers: the address of each, and its bearer token. Both are secrets.

From 0.26 on Alertmanager reads an address from a file. Before, it is in the configuration, which its API shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from plinth.settings import Settings

URL_FILES_SINCE = (0, 26)
TOKENS = {
    "webhook_url": "webhook_token",
    "ticket_webhook_url": "ticket_webhook_token",
    "heartbeat_url": "heartbeat_token",
}
_KEY = "plinth:monitoring.alertmanager"


@dataclass(frozen=True)
class Receiver:
    """A receiver, and the names of the secrets that hold its address and its token."""

    name: str
    url: str
    token: str | None


def receivers(settings: Settings) -> list[Receiver]:
    """Return the receivers that have an address; tickets go where pages go unless they have their own."""
    keys = set(_given(settings))
    ticket = "ticket_webhook_url" if "ticket_webhook_url" in keys else "webhook_url"
    named = {"heartbeat": "heartbeat_url", "page": "webhook_url", "ticket": ticket}
    return [
        Receiver(name, _secret(url), _secret(TOKENS[url]) if TOKENS[url] in keys else None)
        for name, url in named.items()
        if url in keys
    ]


def secrets(settings: Settings) -> dict[str, SecretStr]:
    """Return the addresses and tokens by the names of their secrets."""
    return {_secret(key): value for key, value in _given(settings).items()}


def urls(settings: Settings) -> list[SecretStr]:
    """Return the addresses only."""
    return [value for key, value in _given(settings).items() if key in TOKENS]


def setting_refusals(settings: Settings) -> Iterator[str]:
    """Yield a refusal for each token without an address."""
    given = _given(settings)
    for url, token in TOKENS.items():
        if token in given and url not in given:
            yield f"{_KEY}.{token} is set and {url} is not, so nobody is called with it; set {url}, or unset the token."


def version_refusals(settings: Settings, version: tuple[int, ...] | None) -> Iterator[str]:
    """Yield a refusal for each address that an Alertmanager of this version shows; an unknown version counts as old.

    An address with a token in addition, or one that is listed as public, is assumed to hold no secret of its own.
    """
    if version and version >= URL_FILES_SINCE:
        return
    given = _given(settings)
    program = f"Alertmanager {'.'.join(map(str, version))}" if version else "This Alertmanager"
    for url, token in TOKENS.items():
        if url not in given:
            continue
        if "@" in urlsplit(given[url].get_secret_value()).netloc:
            yield (
                f"{program} shows {_KEY}.{url}, and that address has a login in it; set {token} in place of the login, "
                "or install Alertmanager 0.26 or later."
            )
        elif token not in given and url not in settings.monitoring.alertmanager.public_urls:
            yield (
                f"{program} shows {_KEY}.{url} to whoever is logged in; put its secret into {token}, list {url} in "
                "public_urls if the address holds none, or install Alertmanager 0.26 or later."
            )


def image_refusals(settings: Settings, reference: str) -> Iterator[str]:
    """Yield a refusal for an image whose tag means an Alertmanager that is too old to read addresses from files."""
    tag = re.search(r":v?(\d+)\.(\d+)[^/]*$", reference)
    if tag and (int(tag[1]), int(tag[2])) < URL_FILES_SINCE and receivers(settings):
        yield f"The image {reference} reads no address of {_KEY} from a file; name one of Alertmanager 0.26 or later."


def _given(settings: Settings) -> Mapping[str, SecretStr]:
    alertmanager = settings.monitoring.alertmanager
    values = {key: getattr(alertmanager, key) for pair in TOKENS.items() for key in pair}
    return {key: value for key, value in values.items() if value is not None}


def _secret(key: str) -> str:
    return f"alertmanager_{key}"
