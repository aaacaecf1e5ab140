"""What all settings are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# What stands in the place of a secret where only its ciphertext is known.
ENCRYPTED = "(encrypted)"
Port = Annotated[int, Field(ge=1, le=65535)]


class Model(BaseModel):
    """Some keys that belong together; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
