"""Restore Qdrant: create each collection under a new name, compare it, then take the live name; aliases switch last."""

from __future__ import annotations

from collections.abc import Sequence

from plinth.backup.config import QdrantStore
from plinth.backup.manifest import Collection, QdrantPart
from plinth.backup.restore_source import BEGUN, DONE, Source, Wish
from plinth.backup.session import BackupError
from plinth.backup.stores.qdrant import recreate as qdrant_recreate
from plinth.backup.stores.qdrant.node_client import Node, nodes
from plinth.backup.temporary.launcher import current
from plinth.qdrant.client import collection_path
from plinth.system.versions import numbers

# The journal state after the comparison, under the live name; aliases and the copy are still to be handled.
MADE = "made"


def wanted(part: QdrantPart, wish: Wish) -> list[Collection]:
    """Return the collections that a request includes."""
    return [saved for saved in part.collections if not wish.collections or saved.name in wish.collections]


def refusals(source: Source, part: QdrantPart, store: QdrantStore, wish: Wish) -> list[str]:
    """Return why the collections may not be restored as requested, a message for each reason; nothing is changed."""
    connections = nodes(store)
    first = connections[0]
    said = []
    if first.is_embedded != (part.engine == "embedded"):
        other = "the embedded engine" if part.engine == "embedded" else "a real Qdrant server"
        return [f"The set holds snapshots of {other}, and another engine answers at {first.url}; restore into {other}."]
    for node in connections:
        if numbers(node.version) < numbers(part.version):
            said.append(
                f"Qdrant at {node.url} is {node.version} and the set was made by {part.version}: an older server does "
                "not read a newer one's data; upgrade it first."
            )
    made, there = source.made(), set(first.collections())
    for saved in wanted(part, wish):
        copy = source.beside(saved.name)
        word = made.get(f"qdrant/{copy}")
        needed = wish.replace or (wish.beside and word != DONE)
        if needed and copy in there and word != BEGUN and qdrant_recreate.differences(first, saved, copy):
            said.append(_in_the_way(copy))
        if wish.replace or wish.beside or saved.name not in there or f"qdrant/{saved.name}" in made:
            continue
        if count := first.count(saved.name):
            said.append(f"The collection {saved.name} holds {count} points.")
    return said


def restore(source: Source, part: QdrantPart, store: QdrantStore, wish: Wish) -> list[str]:
    """Restore the requested collections in turn for their live names, and return a message for each."""
    chosen = wanted(part, wish)
    restoring = _Restoring(source, part, nodes(store), store)
    return [restoring.one(saved, beside=wish.beside) for saved in chosen]


_BY_ALIAS = "run the restore again, which makes it anew; where data was live, aliases lead to a compared copy meanwhile"


class _Restoring:
    def __init__(self, source: Source, part: QdrantPart, connections: Sequence[Node], store: QdrantStore) -> None:
        self._source, self._part, self._nodes, self._store = source, part, connections, store
        self._first = connections[0]

    def one(self, saved: Collection, *, beside: bool) -> str:
        name, copy = saved.name, self._source.beside(saved.name)
        word = self._source.made().get(f"qdrant/{name}")
        if word == DONE:
            return f"qdrant: {name} was restored before."
        if beside:
            if self._source.made().get(f"qdrant/{copy}") == DONE and copy in self._first.collections():
                return f"qdrant: {name} was restored before, as {copy}."
            self._make(saved, copy)
            self._source.drop(saved)
            self._source.making(f"qdrant/{copy}", DONE)
            return f"qdrant: {name} is restored as {copy}; no alias leads to it."
        aliases = self._aliases(name, *([copy] if self._is_begun(copy) else []))
        if word != MADE:
            self._anew(saved, copy, aliases)
            self._source.drop(saved)
        self._source.await_turn("qdrant")
        self._lead(aliases, name)
        if self._is_begun(copy):
            self._first.call("DELETE", collection_path(copy))
        self._source.making(f"qdrant/{name}", DONE)
        return f"qdrant: {name} is restored with {self._first.count(name)} points{_told(aliases)}."

    def _anew(self, saved: Collection, copy: str, aliases: Sequence[str]) -> None:
        """Create a collection in place of the live one, even if they look equal: the comparison covers only samples."""
        name = saved.name
        self._source.making(f"qdrant/{name}", BEGUN)
        if name in self._first.collections():
            if self._first.count(name):
                # Readers through an alias use the compared copy while the collection itself is created again.
                self._make(saved, copy)
                self._source.await_turn("qdrant")
                self._lead(aliases, copy)
            self._first.call("DELETE", collection_path(name))
        self._make(saved, name)
        self._source.making(f"qdrant/{name}", MADE)

    def _make(self, saved: Collection, name: str) -> None:
        if self._is_as_saved(saved, name):
            self._source.work.say(f"qdrant {name} is there already, as it was saved")
            return
        if name in self._first.collections():
            if not self._is_begun(name):
                raise BackupError(_in_the_way(name))
            self._first.call("DELETE", collection_path(name))
        self._source.making(f"qdrant/{name}", BEGUN)
        fetch = self._source.fetch_for_store
        if self._part.engine == "embedded":
            qdrant_recreate.recover(
                self._first, saved, name, fetch, self._store.snapshots, current(), self._source.work.say
            )
        else:
            qdrant_recreate.rebuild(self._nodes, saved, name, fetch, self._source.work.say)
        wrong = qdrant_recreate.differences(self._first, saved, name)
        if wrong:
            now = "what was live is as it was" if name != saved.name else _BY_ALIAS
            raise BackupError(f"{saved.name} did not come back as it was saved ({wrong[0]}); {now}.")

    def _is_begun(self, name: str) -> bool:
        return self._source.made().get(f"qdrant/{name}") == BEGUN

    def _is_as_saved(self, saved: Collection, name: str) -> bool:
        return name in self._first.collections() and not qdrant_recreate.differences(self._first, saved, name)

    def _aliases(self, *names: str) -> list[str]:
        """Return the aliases that are to point to a collection: those of the set, and those that point to it now."""
        now = self._first.aliases()
        saved = {alias for alias, target in self._part.aliases.items() if target in names}
        # An alias that points elsewhere by now was moved on purpose.
        free = {alias for alias in saved if now.get(alias) in (None, *names)}
        return sorted(free | {alias for alias, target in now.items() if target in names})

    def _lead(self, aliases: Sequence[str], name: str) -> None:
        there = self._first.aliases()
        actions: list[dict[str, object]] = []
        for alias in aliases:
            if there.get(alias) == name:
                continue
            if alias in there:
                actions.append({"delete_alias": {"alias_name": alias}})
            actions.append({"create_alias": {"alias_name": alias, "collection_name": name}})
        if actions:
            self._first.call("POST", "/collections/aliases", {"actions": actions})


def _in_the_way(copy: str) -> str:
    return f"The collection {copy} is there, and not as the set has it; delete it, or choose another set."


def _told(aliases: Sequence[str]) -> str:
    return f", behind {', '.join(aliases)}" if aliases else ""
