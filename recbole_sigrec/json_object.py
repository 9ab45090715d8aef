"""Values in JSON's types, and results that are objects and JSON at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pydantic

    M = TypeVar("M", bound=pydantic.BaseModel)


class JsonObject(dict[str, Any]):
    """Base of results: a frozen dataclass, and a dict of its fields.

    ``result.key`` and ``result["key"]`` are the same, and ``json.dumps(result)`` works.
    """

    def __post_init__(self) -> None:
        self.update(vars(self))


def jsonable(value: Any) -> Any:
    """A value in JSON's types; what JSON does not know is written as a string."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(value[key]) for key in value}
    if isinstance(value, list | tuple | set):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def validated(kind: type[M], value: Any) -> M:
    """What a file holds, as a pydantic model has it; no value is converted.

    Raises:
        ValueError: a key is missing or has another type; the message begins with the key.
    """
    from pydantic import ValidationError

    try:
        return kind.model_validate(value, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"[{key[:200]}]: {first['msg'].lower()}") from None
