"""Back up Redis: its own point-in-time RDB over the wire, without access to its files."""

from __future__ import annotations

import hashlib
import re
from typing import Any, cast

import redis

from plinth.backup.config import RedisStore, secret
from plinth.backup.manifest import Range, RedisPart
from plinth.backup.session import BackupError, Work, tool
from plinth.backup.set_paths import RDB
from plinth.errors import UserError

SAMPLES = 40
LARGEST_SAMPLE = 1 << 20
TIMEOUT_S = 60
_NEWER_FORMAT = re.compile(r"Can't handle RDB format version", re.IGNORECASE)

Client = redis.Redis


def connect(host: str, port: int, password: str | None, database: int = 0) -> Client:
    """Return a connection that answers bytes."""
    return redis.Redis(host=host, port=port, password=password, db=database, socket_timeout=TIMEOUT_S)


def take(work: Work, store: RedisStore) -> tuple[RedisPart | None, list[str]]:
    """Back up the server's RDB; return its part of the manifest and a message for each failure."""
    password = secret(store.password_file)
    work.say("taking redis")
    try:
        with connect(store.host, store.port, password) as client:
            version = str(cast(Any, client.info("server"))["redis_version"])
            memory = used_memory(client)
            before, samples = keyspace(client), {}
            for number in before:
                with connect(store.host, store.port, password, number) as one:
                    samples[number] = sample(one)
            _fetch(work, store, password)
            after = keyspace(client)
            for number, known in samples.items():
                with connect(store.host, store.port, password, number) as one:
                    samples[number] = {key: value for key, value in known.items() if digest(one, key) == value}
    except redis.RedisError as error:
        return None, [f"Redis at {store.host}:{store.port} was not taken: {' '.join(str(error).split())}"]
    except UserError as error:
        return None, [str(error)]
    databases = sorted(before.keys() | after.keys())
    return RedisPart(
        version=version,
        path=RDB,
        memory=memory,
        keys={n: Range.of(before.get(n, (0, 0))[0], after.get(n, (0, 0))[0]) for n in databases},
        expiring={n: max(before.get(n, (0, 0))[1], after.get(n, (0, 0))[1]) for n in databases},
        samples=samples,
    ), []


def verify_rdb(work: Work, path: str) -> None:
    """Read an RDB to its end with Redis' own checker; of a newer format only the frame is checked."""
    done = work.run([tool("redis-check-rdb", "redis-tools"), path])
    if done.code != 0 and _NEWER_FORMAT.search(done.out + done.err):
        work.say(f"redis: this machine's redis-check-rdb is older than the server, so {RDB} is not read to its end")
        return
    if done.code != 0:
        raise BackupError(f"The RDB of Redis is damaged: {done.words}")


def keyspace(client: Client) -> dict[int, tuple[int, int]]:
    """Return the number of keys, and of expiring keys, by database."""
    found = client.info("keyspace")
    return {int(name.removeprefix("db")): (int(told["keys"]), int(told["expires"])) for name, told in found.items()}


def used_memory(client: Client) -> int:
    """Return the bytes of a server's data in memory."""
    return int(cast(Any, client.info("memory"))["used_memory"])


def sample(client: Client) -> dict[str, str]:
    """Return digests of some keys that do not expire, by the key in hex."""
    found: dict[str, str] = {}
    for key in client.scan_iter(count=SAMPLES):
        if len(found) >= SAMPLES:
            break
        if client.ttl(key) == -1 and (value := digest(client, key.hex())):
            found[key.hex()] = value
    return found


def digest(client: Client, key_hex: str) -> str | None:
    """Return a digest of a key's value that does not depend on its encoding; None for a large or missing one."""
    key = bytes.fromhex(key_hex)
    if (cast(Any, client.memory_usage(key)) or 0) > LARGEST_SAMPLE:
        return None
    kind = cast(bytes, client.type(key)).decode()
    answer: Any
    if kind == "string":
        answer = client.get(key)
    elif kind == "hash":
        answer = sorted(cast(dict[bytes, bytes], client.hgetall(key)).items())
    elif kind == "list":
        answer = client.lrange(key, 0, -1)
    elif kind == "set":
        answer = sorted(cast(set[bytes], client.smembers(key)))
    elif kind == "zset":
        answer = sorted(cast(list[Any], client.zrange(key, 0, -1, withscores=True)))
    elif kind == "stream":
        answer = client.xrange(key)
    else:
        return None
    return hashlib.sha256(f"{kind} {answer!r}".encode()).hexdigest()


def _fetch(work: Work, store: RedisStore, password: str | None) -> None:
    file = work.stage / RDB
    file.parent.mkdir(exist_ok=True)
    done = work.run(
        [tool("redis-cli", "redis-tools"), "-h", store.host, "-p", str(store.port), "--rdb", file],
        {"REDISCLI_AUTH": password} if password else {},
    )
    if done.code != 0 or not file.exists() or file.stat().st_size == 0:
        file.unlink(missing_ok=True)
        raise BackupError(f"Redis at {store.host}:{store.port} gave no RDB: {done.words}")
    verify_rdb(work, str(file))
