"""Certificates of an environment's own small CA, for services that speak TLS among themselves.

Elliptic curve keys (P-256). The CA's key stays with the data; a server's certificate is short-lived and is renewed
before it expires.
"""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from plinth.system.timestamps import past

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
RENEW_DAYS = 60
# Clocks of two machines differ a little.
BEFORE = timedelta(minutes=5)
_SERVER, _CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
PURPOSES = {"peer": [_SERVER, _CLIENT], "server": [_SERVER], "client": [_CLIENT]}


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both PEM."""

    cert: str
    key: str = field(repr=False)


def make_authority(name: str) -> Pair:
    """Create a CA that may issue certificates of servers and no further CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        _builder(subject, subject, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(_pem(built), _key_pem(key))


def issue(authority: Pair, name: str, hosts: Sequence[str], purpose: str = "peer", days: int = SERVER_DAYS) -> Pair:
    """Issue a certificate for host names and addresses, valid for ``days``.

    Its purpose is `server`, `client`, or `peer` for both ends of a connection.
    """
    issuer = x509.load_pem_x509_certificate(authority.cert.encode())
    issuer_key = serialization.load_pem_private_key(authority.key.encode(), password=None)
    if not isinstance(issuer_key, ec.EllipticCurvePrivateKey):
        raise TypeError("the authority's key is no elliptic curve key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        _builder(subject, issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(PURPOSES[purpose]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return Pair(_pem(built), _key_pem(key))


def is_due(cert: str, now: datetime | None = None) -> bool:
    """Return whether a certificate expires within :data:`RENEW_DAYS`, or begins ahead of the clock (not valid yet)."""
    now, made = now or datetime.now(UTC), x509.load_pem_x509_certificate(cert.encode())
    return made.not_valid_after_utc - now < timedelta(days=RENEW_DAYS) or begins_ahead(cert, now)


def begins_ahead(cert: str, now: datetime | None = None) -> bool:
    """Return whether a certificate begins ahead of the clock: the clock that issued it was."""
    begins = x509.load_pem_x509_certificate(cert.encode()).not_valid_before_utc
    return past(begins.timestamp(), (now or datetime.now(UTC)).timestamp()) is None


def trusting(ca_cert: str | None, client: Pair | None = None) -> ssl.SSLContext:
    """Return the context that clients verify servers with: this CA (PEM) only, or the system trust store.

    With ``client`` it presents its own certificate.
    """
    context = ssl.create_default_context(cadata=ca_cert)
    if client:
        # OpenSSL reads files alone.
        with tempfile.TemporaryDirectory(prefix="plinth-") as directory:
            path = Path(directory) / "client.pem"
            path.touch(mode=0o600)
            path.write_text(client.key + client.cert)
            context.load_cert_chain(path)
    return context


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BEFORE)
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
