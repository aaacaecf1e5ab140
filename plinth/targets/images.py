"""Image references: the pins of config/images.yaml, with what an environment sets in their place.

Pure, but for reading the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from plinth.errors import UserError
from plinth.programs.spec import Program
from plinth.services.spec import Service
from plinth.settings import Settings, TargetName
from plinth.system.yaml_files import read_yaml

PINS = Path("config") / "images.yaml"
# What Plinth's own image is built on.
BASE = "python"
BUILT_HERE = "localhost/"
_TAG = re.compile(r":(?P<v>v?)\d+(\.\d+)+")


@dataclass(frozen=True)
class Images:
    """Where the images of an environment come from.

    ``mirror`` is a registry that holds all of them under their own paths; ``set_alone`` are whole references by key,
    which neither the pin nor the mirror touches.
    """

    pinned: Mapping[str, str]
    mirror: str | None = None
    set_alone: Mapping[str, str] = field(default_factory=dict)

    def reference(self, program: Program) -> str:
        """Return the image of a program."""
        return self.of(program.image, program.version)

    def of(self, key: str, version: str | None = None) -> str:
        """Return the image of a key, in another version where one is given."""
        alone = self.set_alone.get(key)
        if alone is not None:
            return alone
        pinned = at_version(self.pinned[key], version)
        return mirrored(pinned, self.mirror) if self.mirror else pinned

    def renamed(self, references: Mapping[str, str]) -> Images:
        """Return the same images under the engine's names for them, by key."""
        return replace(self, set_alone={**self.set_alone, **references})

    def references(self, services: Sequence[Service]) -> dict[str, str]:
        """Return the images that services need, by key."""
        return {service.program.image: self.reference(service.program) for service in services}


def pins(root: Path) -> dict[str, str]:
    """Return the reference of each image by key, from config/images.yaml."""
    found: dict[str, str] = read_yaml(root / PINS)["images"]
    return found


def image_catalog(settings: Settings, root: Path) -> Images:
    """Where the images of an environment come from; refuses an override of an image that there is not."""
    source = settings.docker if settings.target is TargetName.docker else settings.kubernetes
    return images(root, source.registry_mirror, source.images)


def images(root: Path, mirror: str | None, set_alone: Mapping[str, str]) -> Images:
    """Return the images of an environment; refuses an override of an unknown image."""
    pinned = pins(root)
    unknown = sorted(set(set_alone) - set(pinned))
    if unknown:
        raise UserError(
            f"plinth:docker.images names '{unknown[0]}', which is no image of {PINS}; known are: {', '.join(pinned)}."
        )
    return Images(pinned, mirror, set_alone)


def is_built_here(reference: str) -> bool:
    """Whether no registry has an image: `plinth images build` makes it."""
    return reference.startswith(BUILT_HERE)


def at_version(reference: str, version: str | None) -> str:
    """Return a reference with another version in its tag; the rest of the tag stays.

    The digest belongs to its version: that of another version is not known here.
    """
    if version is None:
        return reference
    tagged = without_digest(reference)
    name, separator, tag = tagged.rpartition("/")
    changed = _TAG.sub(lambda match: f":{match['v']}{version.removeprefix('v')}", tag, count=1)
    other = f"{name}{separator}{changed}"
    return reference if other == tagged else other


def without_digest(reference: str) -> str:
    """Return a reference by its tag only: `docker.io/prom/x:1@sha256:…` is `docker.io/prom/x:1`."""
    return reference.partition("@")[0]


def by_digest(reference: str) -> str:
    """Return a reference by its digest only, which names one image for ever; by its tag where it has no digest."""
    digest = reference.partition("@")[2]
    return f"{repository(reference)}@{digest}" if digest else reference


def repository(reference: str) -> str:
    """Return a reference without its tag and its digest."""
    name, separator, last = without_digest(reference).rpartition("/")
    return f"{name}{separator}{last.partition(':')[0]}"


def with_digests(pins_text: str, digests: Mapping[str, str]) -> str:
    """Return the text of config/images.yaml with other digests, by key; everything else is unchanged."""
    for key, digest in digests.items():
        line = re.compile(rf"^(  {re.escape(key)}: [^\s@]+)(@sha256:[0-9a-f]{{64}})?$", re.MULTILINE)
        pins_text = line.sub(rf"\g<1>@{digest}", pins_text, count=1)
    return pins_text


def mirrored(reference: str, mirror: str) -> str:
    """Return a reference with another registry: `docker.io/prom/x:1` on `r.example/m` is `r.example/m/prom/x:1`."""
    host, separator, path = reference.partition("/")
    has_host = bool(separator) and ("." in host or ":" in host or host == "localhost")
    return f"{mirror.rstrip('/')}/{path if has_host else reference}"
