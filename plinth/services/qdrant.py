"""Qdrant: REST on 6333, gRPC on 6334, between peers on 6335; two keys, telemetry off.

Without a `qdrant` binary the embedded server serves the same REST API from the same config file.
"""

from __future__ import annotations

from pathlib import Path

from plinth.errors import UserError
from plinth.programs.qdrant import AUDIT, program
from plinth.programs.spec import Limits
from plinth.services.spec import File, Health, Peers, Scrape, Service
from plinth.settings import Settings, Tls

API_KEY, ALT_API_KEY = "qdrant_api_key", "qdrant_alt_api_key"
READ_ONLY_API_KEY = "qdrant_read_only_api_key"

TLS_CERT, TLS_KEY, TLS_CA = "qdrant_tls_cert", "qdrant_tls_key", "qdrant_tls_ca"
PEER_PORT = 6335


def tls_files(tls: Tls | None) -> tuple[str, ...]:
    """Return the secrets that become files: certificate, key and, unless the system trust store verifies it, the CA."""
    ca = tls_ca(tls)
    return () if tls is None else (TLS_CERT, TLS_KEY, *((ca,) if ca else ()))


def tls_ca(tls: Tls | None) -> str | None:
    """Return the name of the CA certificate's secret; None without TLS, and where the system trust store is used."""
    return TLS_CA if tls and tls.names_signer else None


def refuse_other_engine(storage: Path, *, embedded_serves: bool) -> None:
    """Refuse to start one server over the other's data: each reads only its own files."""
    holds = {
        "embedded": storage / "embedded" if any(storage.glob("embedded/*/collection.json")) else None,
        "server": storage / "collections" if any(storage.glob("collections/*/config.json")) else None,
    }
    names = {"embedded": "the embedded engine", "server": "a real Qdrant server"}
    serves, other = ("embedded", "server") if embedded_serves else ("server", "embedded")
    if holds[other] and not holds[serves]:
        raise UserError(
            f"{storage} holds collections of {names[other]}, and {names[serves]} would be started now and not see "
            f"them. Set plinth:qdrant.engine to {other} to go on with them; `plinth migrate qdrant` copies them from "
            f"there into an environment of {names[serves]}. To start afresh delete {holds[other]}."
        )


def service(settings: Settings) -> Service:
    """Return Qdrant, one node or a cluster.

    Every node has the same arguments: the node whose bootstrap address is its own creates the cluster, the others join
    it. Once a node has joined it uses its own record, so nodes may restart in any order.
    """
    wanted = settings.qdrant
    scheme = "https" if wanted.tls else "http"
    founder, own = (scheme + "://{{ peer(" + number + ", 'p2p') }}" for number in ("0", "node"))
    joining = ("--bootstrap", founder, "--uri", own)
    values = {"qdrant": wanted, "tls_ca": tls_ca(wanted.tls), "audit": AUDIT if settings.audited else None}
    return Service(
        name="qdrant",
        program=program(wanted.engine, wanted.version, tls=wanted.tls is not None),
        arguments=("--config-path", "{{ file('config.yaml') }}", *(joining if wanted.nodes > 1 else ())),
        # By default next to the binary, where nothing can be written.
        environment={"QDRANT_INIT_FILE_PATH": "{{ volume('storage') }}/.qdrant-initialized"},
        files={"config.yaml": File("config/qdrant/config.yaml.j2", values)},
        ports={"http": wanted.http_port, "grpc": wanted.grpc_port},
        volumes={"storage": settings.size.disk_gib, "snapshots": settings.size.disk_gib}
        | ({AUDIT: 1} if settings.audited else {}),
        # The port opens only once every collection is loaded, so a start takes as long as the data is big.
        health=Health("http", "http", "/readyz", deadline_s=300, tls=wanted.tls is not None, ca=tls_ca(wanted.tls)),
        scrape=Scrape("http", secret=READ_ONLY_API_KEY if wanted.auth else None, scheme=scheme, ca=tls_ca(wanted.tls)),
        secret_files=tls_files(wanted.tls),
        limits=Limits(settings.size.cpus, settings.size.memory_mib),
        run_as=("plinth-qdrant",),
        stop_grace_s=60,
        peers=Peers(wanted.nodes, {"p2p": PEER_PORT}),
    )
