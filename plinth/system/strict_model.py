"""The base of what is read from a file or sent between programs."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A model that refuses an unknown key, and that nothing changes once it is loaded."""

    model_config = ConfigDict(extra="forbid", frozen=True)
