"""The web configuration of Prometheus and Alertmanager: who may ask, and what no page of another site may do."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode

import bcrypt

# The servers remember a login that they have checked once, so the cost is paid at a start and by who guesses.
COST = 10
SALT_BYTES = 16
# bcrypt's own alphabet, in the order of base64's.
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# A browser that is logged in shows the pages in no frame of another site's, where a click could be stolen.
HEADERS = {"X-Frame-Options": "deny", "X-Content-Type-Options": "nosniff"}


def web_config(user: str, password: str, salt: str) -> str:
    """The file's text, the same for the same password and salt: a hash of its own for each run would restart servers.

    ``salt`` is any text; it is hashed to the 16 bytes that bcrypt takes. ``password`` has at most 72 bytes.
    """
    document = {
        "basic_auth_users": {user: _hashed(password, salt)},
        "http_server_config": {"headers": HEADERS},
    }
    return json.dumps(document, indent=2) + "\n"


def _hashed(password: str, salt: str) -> str:
    raw = hashlib.sha256(salt.encode()).digest()[:SALT_BYTES]
    encoded = b64encode(raw).rstrip(b"=").translate(bytes.maketrans(_BASE64, _BCRYPT))
    return bcrypt.hashpw(password.encode(), b"$2b$%02d$%s" % (COST, encoded)).decode()
