"""A migration waits for a server that is busy or away, and not for an address at which there never was one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from plinth.migrate.retrying_client import PatientQdrant
from plinth.qdrant.client import QdrantError, QdrantUnreachable
from tests.answers import Answers, close, serve
from tests.conftest import free_port


class Busy(Answers):
    """A server that says it is busy so many times, as one that is just loading or dropping collections."""

    left = 0

    def do_GET(self) -> None:
        cls = type(self)
        cls.left -= 1
        self.reply(503 if cls.left >= 0 else 200, {"result": {"aliases": []}, "status": {"error": "busy"}})


@pytest.fixture
def url() -> Iterator[str]:
    server = serve(Busy)
    yield f"http://127.0.0.1:{server.server_address[1]}"
    close(server)


def test_a_server_that_is_busy_at_the_first_request_is_waited_for(url: str) -> None:
    # More than the three tries that every request has.
    Busy.left = 5
    assert PatientQdrant(url, None, 60).aliases() == {}
    assert Busy.left < 0


def test_one_that_stays_busy_is_an_error_when_patience_is_at_its_end(url: str) -> None:
    Busy.left = 1_000_000
    with pytest.raises(QdrantError, match="answered 503"):
        PatientQdrant(url, None, 0.1).aliases()


def test_an_address_at_which_nobody_is_is_an_error_at_once() -> None:
    with pytest.raises(QdrantUnreachable):
        # A wait that long would end the test by its own time limit.
        PatientQdrant(f"http://127.0.0.1:{free_port()}", None, 3600).aliases()
