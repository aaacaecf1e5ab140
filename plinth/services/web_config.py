"""The web configuration of Prometheus and Alertmanager: logins, and headers against pages of other sites."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode

import bcrypt

# The servers cache a login that they have checked, so the cost is paid at a start and by an attacker who guesses.
COST = 10
SALT_BYTES = 16
# bcrypt's own alphabet, in the order of base64's.
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# Against clickjacking: a logged-in browser must not show the pages in a frame of another site.
HEADERS = {"X-Frame-Options": "deny", "X-Content-Type-Options": "nosniff"}


def web_config(user: str, password: str, salt: str) -> str:
    """Return the file's text, the same for the same password and salt: a new hash for each run would restart servers.

    ``salt`` is any text; it is hashed to the 16 bytes that bcrypt needs. ``password`` has at most 72 bytes.
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
