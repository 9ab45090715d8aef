"""What may be asked, with its limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StringConstraints, model_validator
from typing_extensions import Self

MOST_BYTES, MOST_READ = 2**20, 2**23
"""Of a request's body. Up to the second it is read to its end before it is refused, since a client
that is still sending may not see the answer; of a larger body no more is read."""
MOST_K, MOST_USERS, MOST_ANSWERS = 1000, 1000, 100_000
"""Items for each user, users or histories, and both multiplied."""
MOST_DIVERSE_K, MOST_DIVERSE_ANSWERS = 100, 5_000
"""Likewise with diversity, which takes the longer the more items are chosen."""
MOST_HISTORY, MOST_CANDIDATES, MOST_EXPLAINED = 1000, 10_000, 100
"""Items of a history or left out for a user, candidates, and items that are explained."""

Token = Annotated[str, StringConstraints(max_length=1000)]
History = Annotated[list[Token], Field(max_length=MOST_HISTORY)]
Scalar = str | int | float | bool | None


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


class OneUser(_Request):
    """The query of a recommendation for one user."""

    k: int = Field(10, ge=1, le=MOST_K)
    exclude: Literal["seen", "none"] = "seen"


class Similar(_Request):
    """The query of similar items."""

    k: int = Field(10, ge=1, le=MOST_K)
    by: Token = "behavior"


class Recommend(_Request):
    """See :meth:`recbole_sigrec.serving.recommender.Recommender.recommend`."""

    users: Annotated[list[Token], Field(max_length=MOST_USERS)] | None = None
    histories: Annotated[list[History], Field(max_length=MOST_USERS)] | None = None
    k: StrictInt = Field(10, ge=1, le=MOST_K)
    exclude: Literal["seen", "none"] | dict[Token, History] = "seen"
    candidates: Annotated[list[Token], Field(max_length=MOST_CANDIDATES)] | None = None
    where: dict[Token, Scalar | list[Scalar]] | None = None
    diversity: float = Field(0.0, ge=0, lt=1)
    unknown: Literal["error", "new"] = "error"

    @model_validator(mode="after")
    def _is_not_too_much(self) -> Self:
        if (self.users is None) == (self.histories is None):
            raise ValueError("give either users or histories")
        n = len(self.users or self.histories or ())
        if self.diversity and self.k > MOST_DIVERSE_K:
            raise ValueError(f"k is at most {MOST_DIVERSE_K} with diversity")
        most = MOST_DIVERSE_ANSWERS if self.diversity else MOST_ANSWERS
        if n * self.k > most:
            raise ValueError(f"{n} users of k = {self.k} items are more than {most}; ask in parts")
        return self


class Explain(_Request):
    """See :meth:`recbole_sigrec.serving.recommender.Recommender.explain`."""

    user: Token | None = None
    history: History | None = None
    items: Annotated[list[Token], Field(min_length=1, max_length=MOST_EXPLAINED)]

    @model_validator(mode="after")
    def _is_of_one(self) -> Self:
        if (self.user is None) == (self.history is None):
            raise ValueError("give either a user or a history")
        return self


class View(_Request):
    """What the page asks for: a user, or a history, which may be empty."""

    user: Token | None = None
    history: History = []
