"""Collections and aliases as Pulumi resources over :mod:`plinth.qdrant`, which has all the logic."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pulumi
from pulumi.dynamic import CheckFailure, CheckResult, CreateResult, ReadResult, Resource, UpdateResult

from plinth.qdrant.apply import apply, converge
from plinth.qdrant.client import Qdrant, QdrantError, collection_path
from plinth.qdrant.plan import immutable_changes, plan_aliases, plan_collection
from plinth.qdrant.render import render
from plinth.qdrant.server_state import read, read_collection
from plinth.qdrant.spec import CollectionSpec
from plinth.resources.base import GONE, Provider, optional_secret, to_json


class CollectionProvider(Provider):
    """Refuses what can't be done in place before it calls the server; ``drift`` is what a refresh found different."""

    compared = ("url", "server", "api_key", "spec", "drift")

    def check(self, _olds: dict[str, Any], news: dict[str, Any]) -> CheckResult:
        """Refuse a change of size, distance or sharding, and point to the blue/green procedure."""
        before, after = _olds.get("spec"), news.get("spec")
        if not (isinstance(before, str) and isinstance(after, str)):
            return CheckResult(news, [])
        refused = immutable_changes(_spec(before), _spec(after))
        return CheckResult(news, [CheckFailure("spec", refusal.sentence) for refusal in refused])

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Create the collection, or bring an existing one to its spec."""
        spec = _spec(props["spec"])
        with _client(props) as client:
            converge(client, spec)
        return CreateResult(spec.name, {**props, "drift": ""})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Report a deleted collection as gone; else report what differs from the spec."""
        spec = _spec(props["spec"])
        try:
            with _client(props) as client:
                found = read_collection(client, spec.name)
        except QdrantError:
            # The server is down, which its own resource reports; that tells nothing about the data.
            return ReadResult(id_, props)
        return ReadResult(id_, {**props, "drift": render(plan_collection(spec, found))}) if found else GONE

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Change the collection in place."""
        with _client(_news) as client:
            converge(client, _spec(_news["spec"]))
        return UpdateResult({**_news, "drift": ""})

    def delete(self, _id: str, _props: dict[str, Any]) -> None:
        """Keep the data, unless the policy at the last up was to delete."""
        if _props["deletion_policy"] == "delete":
            with _client(_props) as client:
                client.call("DELETE", collection_path(_spec(_props["spec"]).name))


class AliasesProvider(Provider):
    """All aliases of an environment, switched in one request."""

    compared = ("url", "server", "api_key", "specs", "drift")

    def create(self, props: dict[str, Any]) -> CreateResult:
        """Point the aliases."""
        self._switch(props)
        return CreateResult("aliases", {**props, "drift": ""})

    def read(self, id_: str, props: dict[str, Any]) -> ReadResult:
        """Report what differs from the declared aliases."""
        try:
            with _client(props) as client:
                found = read(client)
        except QdrantError:
            return ReadResult(id_, props)
        return ReadResult(id_, {**props, "drift": render(plan_aliases(_specs(props), found))})

    def update(self, _id: str, _olds: dict[str, Any], _news: dict[str, Any]) -> UpdateResult:
        """Point the aliases again."""
        self._switch(_news)
        return UpdateResult({**_news, "drift": ""})

    def _switch(self, props: dict[str, Any]) -> None:
        with _client(props) as client:
            apply(client, plan_aliases(_specs(props), read(client)))


class Collection(Resource, module="plinth", name="Collection"):
    """One physical collection."""

    def __init__(
        self,
        spec: CollectionSpec,
        *,
        url: str,
        server: str,
        api_key: pulumi.Input[str] | None,
        ca_cert: pulumi.Input[str] | None = None,
        deletion_policy: Literal["keep", "delete"],
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare a collection, which is checked again when ``server``, the process behind ``url``, changes.

        ``api_key`` is kept as a secret.
        """
        super().__init__(
            CollectionProvider(),
            f"collection-{spec.name}",
            {
                "url": url,
                "server": server,
                "api_key": optional_secret(api_key),
                "ca_cert": ca_cert,
                "spec": to_json(spec.to_data()),
                "deletion_policy": deletion_policy,
                "drift": "",
            },
            opts,
        )


class Aliases(Resource, module="plinth", name="Aliases"):
    """The aliases of all collections of an environment."""

    def __init__(
        self,
        specs: Sequence[CollectionSpec],
        *,
        url: str,
        server: str,
        api_key: pulumi.Input[str] | None,
        ca_cert: pulumi.Input[str] | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        """Declare the aliases, which are checked again when ``server``, the process behind ``url``, changes.

        ``api_key`` is kept as a secret.
        """
        super().__init__(
            AliasesProvider(),
            "aliases",
            {
                "url": url,
                "server": server,
                "api_key": optional_secret(api_key),
                "ca_cert": ca_cert,
                "specs": to_json([spec.to_data() for spec in specs]),
                "drift": "",
            },
            opts,
        )


def _client(props: Mapping[str, Any]) -> Qdrant:
    return Qdrant(props["url"], props.get("api_key"), ca_cert=props.get("ca_cert"))


def _spec(text: str) -> CollectionSpec:
    return CollectionSpec.model_validate(json.loads(text))


def _specs(props: Mapping[str, Any]) -> list[CollectionSpec]:
    return [CollectionSpec.model_validate(spec) for spec in json.loads(props["specs"])]
