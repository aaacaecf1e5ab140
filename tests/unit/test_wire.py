"""Stand-ins for providers see a chart's values in one order, whichever the engine sent them in."""

from __future__ import annotations

import itertools
import json
from typing import Any

from google.protobuf import struct_pb2

from tests.containers.wire import from_struct, to_struct
from tests.kubernetes.provider import stand_ins

WORDS = ("storage", "snapshots", "data", "work", "state", "repository")


def sent(keys: tuple[str, ...], value: dict[str, Any]) -> struct_pb2.Struct:
    """A struct as it comes over the wire with its keys in this order, which differs from one engine to the next."""
    parts = [to_struct({key: value}).SerializeToString() for key in keys]
    return struct_pb2.Struct.FromString(b"".join(parts))


def test_the_order_in_which_keys_were_sent_is_not_seen() -> None:
    """A map of protobuf is in the order of its hashes, and where two of those meet in the order of the wire."""
    size = {"size": "10Gi"}
    seen = {json.dumps(from_struct(sent(keys, size))) for keys in itertools.permutations(WORDS)}
    assert seen == {json.dumps(dict.fromkeys(sorted(WORDS), size))}


def test_a_stand_in_makes_one_stateful_set_of_the_same_values() -> None:
    """Else a plan would replace it, by chance."""
    values = {"auth": {"existingSecret": "k", "altApiKeyKey": ""}, "replicas": 1}
    made = {
        json.dumps(next(stand_ins({"name": "qdrant", "namespace": "n", "values": {**values, "persistence": volumes}})))
        for keys in itertools.permutations(WORDS)
        for volumes in (from_struct(sent(keys, {"size": "1Gi"})),)
    }
    assert len(made) == 1
