"""The environment's own authority: certificates that a real TLS handshake takes, and those that it does not."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from plinth.deployment.preflight import refusals
from plinth.errors import UserError
from plinth.health.probes import Probe, ProbeFailed
from plinth.resources.certificate import CertificateProvider, kept_authority
from plinth.settings.loader import parse
from plinth.system.tls import AUTHORITY_DAYS, RENEW_DAYS, SERVER_DAYS, Pair, is_due, issue, make_authority, trusting

AUTHORITY = make_authority("test")


def served(pair: Pair, directory: Path, *, clients_of: str | None = None) -> socket.socket:
    """A TLS server that answers every request with 200; with ``clients_of`` it asks for a client's certificate."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    cert.write_text(pair.cert)
    key.write_text(pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    if clients_of:
        context.load_verify_locations(cadata=clients_of)
        context.verify_mode = ssl.CERT_REQUIRED
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(4096)
                    secured.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
            except OSError:
                continue

    threading.Thread(target=answer, daemon=True).start()
    return listening


def probe(listening: socket.socket) -> Probe:
    return Probe("http", "127.0.0.1", listening.getsockname()[1], "/", tls=True)


def test_a_certificate_is_taken_by_who_trusts_its_authority_and_by_nobody_else(tmp_path: Path) -> None:
    with served(issue(AUTHORITY, "q", ["127.0.0.1", "q.test"]), tmp_path) as listening:
        probe(listening).run(None, timeout_s=5, ca_cert=AUTHORITY.cert)
        for other in (make_authority("another").cert, None):
            with pytest.raises(ProbeFailed, match="certificate verify failed"):
                probe(listening).run(None, timeout_s=5, ca_cert=other)


def test_a_certificate_holds_for_its_hosts_alone(tmp_path: Path) -> None:
    with served(issue(AUTHORITY, "q", ["q.test"]), tmp_path) as listening:
        with pytest.raises(ProbeFailed, match="certificate verify failed"):
            probe(listening).run(None, timeout_s=5, ca_cert=AUTHORITY.cert)
        with socket.create_connection(listening.getsockname()) as raw:
            trusting(AUTHORITY.cert).wrap_socket(raw, server_hostname="q.test").close()


def test_a_certificate_opens_the_door_between_peers_too(tmp_path: Path) -> None:
    pair = issue(AUTHORITY, "q", ["127.0.0.1"])
    with served(pair, tmp_path, clients_of=AUTHORITY.cert) as listening:
        context = trusting(AUTHORITY.cert)
        context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
        with (
            socket.create_connection(listening.getsockname(), 5) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as secured,
        ):
            secured.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"200" in secured.recv(4096)


@pytest.mark.parametrize(("purpose", "answered"), [("client", True), ("peer", True), ("server", False), (None, False)])
def test_a_probe_shows_a_certificate_and_a_servers_is_good_for_no_client(
    tmp_path: Path, purpose: str | None, answered: bool
) -> None:
    served_by = issue(AUTHORITY, "q", ["127.0.0.1"], "server")
    client = issue(AUTHORITY, "c", ["c"], purpose) if purpose else None
    with served(served_by, tmp_path, clients_of=AUTHORITY.cert) as listening:
        if answered:
            probe(listening).run(None, timeout_s=5, ca_cert=AUTHORITY.cert, client=client)
        else:
            with pytest.raises(ProbeFailed):
                probe(listening).run(None, timeout_s=5, ca_cert=AUTHORITY.cert, client=client)


def test_a_clients_certificate_serves_nobody(tmp_path: Path) -> None:
    with (
        served(issue(AUTHORITY, "c", ["127.0.0.1"], "client"), tmp_path) as listening,
        pytest.raises(ProbeFailed, match="certificate verify failed"),
    ):
        probe(listening).run(None, timeout_s=5, ca_cert=AUTHORITY.cert)


def test_what_our_own_services_show_each_other_lasts_as_long_as_the_authority(tmp_path: Path) -> None:
    props = {"name": "prometheus", "hosts": '["prometheus"]', "kept_in": str(tmp_path / "tls"), "purpose": "client"}
    made = CertificateProvider().create(props).outs
    assert made is not None
    assert not is_due(made["cert"], datetime.now(UTC) + timedelta(days=AUTHORITY_DAYS - RENEW_DAYS - 1))
    unchanged = {**made, "purpose": "client"}
    assert not CertificateProvider().diff("prometheus", made, unchanged).changes
    # One of before this has no purpose in its state, and stays.
    before = {key: value for key, value in made.items() if key != "purpose"}
    assert not CertificateProvider().diff("qdrant", before, {**before, "purpose": None}).changes


def test_a_certificate_is_due_before_it_ends() -> None:
    cert, now = issue(AUTHORITY, "q", ["q.test"]).cert, datetime.now(UTC)
    assert not is_due(cert, now)
    assert is_due(cert, now + timedelta(days=SERVER_DAYS - RENEW_DAYS + 1))


def test_the_authority_is_kept_closed_to_others_and_issues_again_what_is_due(tmp_path: Path) -> None:
    kept = tmp_path / "tls"
    made = CertificateProvider().create({"name": "q", "hosts": '["q.test"]', "kept_in": str(kept)}).outs
    assert made is not None
    assert stat.S_IMODE((kept / "authority.json").stat().st_mode) == 0o600
    assert kept_authority(kept, "x").cert == made["ca_cert"]
    again = CertificateProvider().update("q", made, made).outs
    assert again is not None
    assert again["ca_cert"] == made["ca_cert"]
    assert again["cert"] != made["cert"]


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ({"cert": "c.pem"}, "cert and key go together"),
        ({"ca_cert": "ca.pem"}, "an own authority has its own"),
    ],
)
def test_half_of_a_pair_is_a_sentence(tls: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse({"target": "docker", "qdrant": {"tls": tls}}, source="x")


def test_peers_without_a_signer_to_check_each_other_by_are_refused() -> None:
    qdrant = {"nodes": 3, "replication_factor": 2, "tls": {"cert": "c.pem", "key": "k.pem"}}
    found = list(refusals(parse({"target": "docker", "qdrant": qdrant}, source="x"), {}))
    assert any("plinth:qdrant.tls.ca_cert is missing" in sentence for sentence in found)
