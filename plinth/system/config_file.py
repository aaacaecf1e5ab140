"""The configuration of Plinth's own programs: one YAML file that `plinth up` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from plinth.errors import UserError
from plinth.system.yaml_files import read_yaml

Model = TypeVar("Model", bound=BaseModel)


def load(path: Path, model: type[Model]) -> Model:
    """Read the file; raises :class:`UserError` naming the key that is wrong."""
    try:
        return model.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {key}: {first['msg']}; run `plinth up` again.") from None
