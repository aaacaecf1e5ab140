"""A short name for contents that may hold secrets."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping


def digest(contents: Mapping[str, str], stack: str) -> str:
    """A short name for the contents of some files, slow to make: a weak password among them is not soon guessed."""
    text = json.dumps(dict(contents), sort_keys=True).encode()
    return hashlib.scrypt(text, salt=f"plinth/{stack}".encode(), n=2**14, r=8, p=1, dklen=6).hex()


def keyed(contents: str, key: str) -> str:
    """A short name for contents that may hold a secret, quick to make: whoever lacks the key can try no guess on it."""
    return hmac.new(key.encode(), contents.encode(), hashlib.sha256).hexdigest()[:12]
