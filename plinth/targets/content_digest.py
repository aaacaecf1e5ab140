"""A short name for contents that may hold secrets."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping


def digest(contents: Mapping[str, str], stack: str) -> str:
    """Return a short hash of files' contents, slow to compute: a weak password in them is not soon guessed."""
    text = json.dumps(dict(contents), sort_keys=True).encode()
    return hashlib.scrypt(text, salt=f"plinth/{stack}".encode(), n=2**14, r=8, p=1, dklen=6).hex()


def keyed(contents: str, key: str) -> str:
    """Return a short keyed hash of contents that may hold a secret; no guess can be checked without the key."""
    return hmac.new(key.encode(), contents.encode(), hashlib.sha256).hexdigest()[:12]
