"""Restore Redis: a temporary server reads the RDB, an empty database of the live one gets the keys, and they swap.

The live server needs no restart and no access to its files, and its append-only file has every restored key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from redis.exceptions import ResponseError

from plinth.backup.config import RedisStore, secret
from plinth.backup.manifest import RedisPart
from plinth.backup.restore_source import DONE, Source, Wish
from plinth.backup.session import BackupError
from plinth.backup.stores.redis.backup import Client, connect, digest, keyspace, used_memory
from plinth.backup.temporary import instances
from plinth.backup.temporary.launcher import current
from plinth.system.versions import numbers

DATABASES = 16
BATCH = 500
NO_NAME = "Redis has no name beside a live one to restore under."


def refusals(source: Source, part: RedisPart, store: RedisStore, wish: Wish) -> list[str]:
    """Return why the set may not be restored as requested, a message for each reason; nothing is changed."""
    if wish.beside:
        return [NO_NAME] if "redis" in wish.stores else []
    with connect(store.host, store.port, secret(store.password_file)) as client:
        version = str(cast(Any, client.info("server"))["redis_version"])
        held = keyspace(client)
        made = source.made()
        left = any(made.get(f"redis/{number}") != DONE for number in part.keys)
        full = _full(client, part.memory or 0) if left else []
    if numbers(version)[:1] < numbers(part.version)[:1]:
        return [f"Redis is {version} and the set was made by {part.version}: an RDB never loads in an older one."]
    if full or wish.replace:
        return full
    return [
        f"Database {number} of Redis holds {held[number][0]} keys."
        for number in sorted(part.keys)
        if number in held and f"redis/{number}" not in made
    ]


def restore(source: Source, part: RedisPart, store: RedisStore, wish: Wish) -> list[str]:
    """Restore every database of the set, and return a message for each."""
    if wish.beside:
        return [f"redis: left out. {NO_NAME}"]
    rdb, _ = source.fetch(part.path)
    password = secret(store.password_file)
    said = []
    with instances.redis_server(source.work.scratch / "redis", rdb, current()) as (saved, port, key):
        with connect(store.host, store.port, password) as live:
            if full := _full(live, used_memory(saved)):
                raise BackupError(full[0])
        for number in sorted(keyspace(saved)):
            with connect("127.0.0.1", port, key, number) as one:
                said.append(_one(source, part, number, one, store, password))
    return said


def _one(source: Source, part: RedisPart, number: int, saved: Client, store: RedisStore, password: str | None) -> str:
    word = source.made().get(f"redis/{number}")
    if word == DONE:
        return f"redis: database {number} was restored before."
    with connect(store.host, store.port, password) as live:
        # The database that a killed run was filling, or else an empty one.
        spare = int(word) if word else _spare(live, keyspace(saved))
        source.making(f"redis/{number}", str(spare))
        source.work.say(f"restoring redis database {number} by way of {spare}")
        with connect(store.host, store.port, password, spare) as empty:
            empty.flushdb()
            copied = _copy(saved, empty)
            changed = [k for k, known in part.samples.get(number, {}).items() if digest(empty, k) != known]
            count = cast(int, empty.dbsize())
            if changed or not copied - part.expiring.get(number, 0) <= count <= copied:
                empty.flushdb()
                raise BackupError(
                    f"Database {number} of Redis did not come back as it was saved ({count} of {copied} keys, "
                    f"{len(changed)} changed); what was live is as it was."
                )
            live.swapdb(number, spare)
            source.making(f"redis/{number}", DONE)
            empty.flushdb(asynchronous=True)
    return f"redis: database {number} is restored with {count} keys."


def _copy(saved: Client, to: Client) -> int:
    """Copy every key with its expiry, and return how many there were."""
    count = 0
    batch: list[bytes] = []
    for key in saved.scan_iter(count=BATCH):
        batch.append(key)
        if len(batch) == BATCH:
            count += _copy_some(saved, to, batch)
            batch = []
    return count + _copy_some(saved, to, batch)


def _copy_some(saved: Client, to: Client, keys: Sequence[bytes]) -> int:
    reading = saved.pipeline(transaction=False)
    for key in keys:
        reading.dump(key)
        reading.pexpiretime(cast(Any, key))
    answers = reading.execute()
    writing = to.pipeline(transaction=False)
    pairs = zip(keys, answers[::2], answers[1::2], strict=True)
    alive = [(key, value, at) for key, value, at in pairs if value is not None]
    for key, value, at in alive:
        writing.restore(key, max(at, 0), value, replace=True, absttl=at > 0)
    try:
        writing.execute()
    except ResponseError as error:
        raise BackupError(f"Redis does not take a saved key ({error}); what was live is as it was.") from error
    return len(alive)


def _spare(live: Client, saved: dict[int, tuple[int, int]]) -> int:
    taken = keyspace(live).keys() | saved.keys()
    spare = next((number for number in reversed(range(DATABASES)) if number not in taken), None)
    if spare is None:
        raise BackupError("All 16 databases of Redis hold keys, and a restore needs an empty one; flush one first.")
    return spare


def _full(live: Client, needed: int) -> list[str]:
    """Return a message where a server may not have the memory for so many more bytes."""
    told = live.info("memory")
    most, used = int(told["maxmemory"]), int(told["used_memory"])
    if not most or used + needed <= most:
        return []
    return [
        f"Redis may take {most >> 20} MiB, holds {used >> 20} and would take {needed >> 20} more while old and new are "
        "both there: it would evict keys; raise plinth:redis.maxmemory_mib, or leave it out by naming the others with "
        "--store."
    ]
