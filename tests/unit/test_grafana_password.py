"""Grafana's password follows the settings, against a server that answers as Grafana's API is documented."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest

from plinth.errors import UserError
from plinth.resources.grafana import AdminProvider
from tests.answers import Answers, close, serve
from tests.conftest import free_port


class Grafana:
    """`GET /api/user` and `PUT /api/user/password` of one admin, by basic authentication."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.asked: list[str] = []
        grafana = self

        class Api(Answers):
            def do_GET(self) -> None:
                if self.is_let_in():
                    self.reply(200, {"login": "admin"})

            def do_PUT(self) -> None:
                body = json.loads(self.content())
                if not self.is_let_in():
                    return
                if body["oldPassword"] != grafana.password:
                    self.reply(401, {"message": "Invalid old password"})
                elif len(body["newPassword"]) < 4 or body["newPassword"] != body["confirmNew"]:
                    self.reply(400, {"message": "New password is too short"})
                else:
                    grafana.password = body["newPassword"]
                    self.reply(200, {"message": "User password changed"})

            def is_let_in(self) -> bool:
                grafana.asked.append(f"{self.command} {self.path}")
                login = base64.b64decode(self.headers["authorization"].removeprefix("Basic ")).decode()
                if login == f"admin:{grafana.password}":
                    return True
                self.reply(401, {"message": "Invalid username or password"})
                return False

        self.server = serve(Api)

    def props(self, password: str) -> dict[str, str]:
        return {"url": f"http://127.0.0.1:{self.server.server_port}", "password": password}


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    made = Grafana("first")
    yield made
    close(made.server)


def follow(grafana: Grafana, before: str, after: str) -> None:
    olds, news = grafana.props(before), grafana.props(after)
    assert AdminProvider().diff("x", olds, news).changes
    assert AdminProvider().update("x", olds, news).outs == news


def test_the_old_password_is_changed_and_lets_nobody_in_afterwards(grafana: Grafana) -> None:
    follow(grafana, "first", "a second 'one': ü")
    assert grafana.password == "a second 'one': ü"
    assert grafana.asked == ["GET /api/user", "PUT /api/user/password"]


def test_one_that_was_changed_by_hand_already_is_taken_as_it_is(grafana: Grafana) -> None:
    follow(grafana, "before", "first")
    assert grafana.password == "first"
    # A wrong one more could be the one for which Grafana locks its admin out.
    assert grafana.asked == ["GET /api/user"]


def test_where_neither_lets_in_that_is_a_sentence(grafana: Grafana) -> None:
    with pytest.raises(UserError, match="neither with the password of the settings nor with the one before"):
        follow(grafana, "before", "after")
    assert grafana.password == "first"


def test_a_password_that_grafana_refuses_is_a_sentence_with_its_words(grafana: Grafana) -> None:
    with pytest.raises(UserError, match=r"New password is too short\); set another"):
        follow(grafana, "first", "abc")


def test_a_grafana_that_does_not_answer_is_a_sentence() -> None:
    gone = {"url": f"http://127.0.0.1:{free_port()}", "password": "x"}
    with pytest.raises(UserError, match="does not answer"):
        AdminProvider().update("x", gone, {**gone, "password": "y"})


def test_nothing_is_asked_at_first_or_as_long_as_the_settings_stay(grafana: Grafana) -> None:
    props = grafana.props("another")
    assert AdminProvider().create(props).outs == props
    assert not AdminProvider().diff("x", props, props).changes
    assert grafana.asked == []
