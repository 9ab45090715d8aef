"""Recommender: a bundle that answers, without torch, RecBole or the training data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from typing_extensions import Self

from recbole_sigrec.errors import DataError
from recbole_sigrec.kernels.csr_rows import csr_of_lists, csr_rows
from recbole_sigrec.kernels.top import first_of_equals
from recbole_sigrec.serving.bundle import Bundle, read_bundle
from recbole_sigrec.serving.explanation import addends
from recbole_sigrec.serving.new_items import Content, added_rows, read_content
from recbole_sigrec.serving.new_users import aggregated
from recbole_sigrec.serving.ranked_lists import Ranking, diverse
from recbole_sigrec.serving.scores import Queries, Scorer
from recbole_sigrec.serving.selection import Excluded, allowed_items, items_left_out
from recbole_sigrec.serving.token_rows import Tokens, several
from recbole_sigrec.tensor_files import csr_of

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 256  # users scored at a time; their scores stay in the processor's cache
_MOST = 2**26  # scores held at a time


class Recommender:
    """Recommends items to users, known or new, with a trained model.

    Tokens are strings; numbers are taken as their texts. Not changed by anything but
    :meth:`add_items`, so that threads may share it.

    Args:
        bundle: see :func:`recbole_sigrec.serving.bundle.read_bundle`.

    Attributes:
        manifest: model, data set, config, metrics, versions and digests.
        users, items: the tokens.
        columns: column → a value for each item, as given at the export.
        content: the items' features.
    """

    def __init__(self, bundle: Bundle):
        arrays = bundle.arrays
        self.manifest, self.columns = bundle.manifest, bundle.columns
        self.users, self.items = Tokens("user", bundle.users), Tokens("item", bundle.items)
        scoring = self.manifest["scoring"]
        self.content: Content = read_content(arrays, scoring["modality_weights"])
        self.scorer = Scorer.read(arrays, len(self.items), scoring)
        self.user_vectors = arrays.get("users.vectors")
        shape = len(self.users), len(self.items)
        self.training = csr_of(arrays, "training", shape)
        validation = csr_of(arrays, "validation", shape)
        self.seen = self.training
        if self.training is not None and validation is not None:
            self.seen = sp.csr_matrix(self.training + validation)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a bundle.

        Raises:
            DataError: see :func:`recbole_sigrec.serving.bundle.read_bundle`.
        """
        return cls(read_bundle(path))

    # ---- recommending ------------------------------------------------------------------------

    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        *,
        history: Sequence[Iterable[Any]] | None = None,
        exclude: Excluded = "seen",
        candidates: Iterable[Any] | None = None,
        where: Mapping[str, Any] | None = None,
        diversity: float = 0.0,
        unknown: Literal["error", "new"] = "error",
    ) -> pd.DataFrame:
        """The best items of users.

        Args:
            users: a token, or several.
            k: how many items; there are fewer rows where fewer may be recommended.
            history: in place of ``users``: for each new user the items that were taken.
            exclude: ``seen``: what the user took in the training and validation parts, or the
                history; ``none``: nothing; ``{user: items}`` (for histories, their places from 0).
            candidates: the items that may be recommended; none given: all.
            where: column → the value, or the values, that a recommended item has there, compared as
                texts; of a column of lists one of an item's values.
            diversity: 0 ranks by score. Else the items are chosen one by one from the best 10 k by
                score − diversity · σ · the largest cosine to an item already chosen, σ the
                deviation of the scores of these 10 k.
            unknown: ``error``, or ``new``: an unknown user, or an empty history, gets the most
                popular items, and unknown items of a history are passed over.

        Returns:
            A table with the columns user (for histories, their place), item, rank and score.

        Raises:
            DataError: a token is unknown, a history empty, or an argument has no such value.
        """
        return self.rank(
            users,
            k,
            history=history,
            exclude=exclude,
            candidates=candidates,
            where=where,
            diversity=diversity,
            unknown=unknown,
        ).frame()

    def rank(
        self,
        users: Any = None,
        k: int = 10,
        *,
        history: Sequence[Iterable[Any]] | None = None,
        exclude: Excluded = "seen",
        candidates: Iterable[Any] | None = None,
        where: Mapping[str, Any] | None = None,
        diversity: float = 0.0,
        unknown: Literal["error", "new"] = "error",
    ) -> Ranking:
        """:meth:`recommend`, without a table."""
        self._check_k(k)
        if isinstance(diversity, str) or not 0 <= diversity < 1:
            raise DataError(f"diversity = [{diversity}]: give a number from 0 to less than 1")
        if unknown not in ("error", "new"):
            raise DataError(f"unknown = [{unknown}]: give `error` or `new`")
        queries = self._queries(users, history, unknown, self.scorer.graph is not None)
        allowed = allowed_items(self.items, self.columns, candidates, where)
        left_out = items_left_out(self.items, queries, exclude)
        found = Ranking(queries.names, [], [])
        step = max(1, min(_BATCH, _MOST // len(self.items)))
        for start in range(0, len(queries), step):
            rows = slice(start, start + step)
            scores = self.scorer.scores(queries[rows])
            if allowed is not None:
                scores[:, ~allowed] = -np.inf
            if left_out is not None:
                part = left_out if step >= len(queries) else left_out[rows]
                scores[
                    np.repeat(np.arange(len(scores)), np.diff(part.indptr)), part.indices
                ] = -np.inf
            found.add(self.items.names, scores, self._best(scores, k, diversity))
        return found

    def all_users(self, k: int = 10, **how: Any) -> Iterator[pd.DataFrame]:
        """The tables of :meth:`recommend` for all users, some users in each.

        Args:
            k, how: its arguments, as ``exclude``.
        """
        for start in range(0, len(self.users), _BATCH):
            yield self.recommend(self.users.names[start : start + _BATCH], k, **how)

    def _check_k(self, k: int) -> None:
        whole = isinstance(k, int | np.integer) and not isinstance(k, bool)
        if not whole or not 1 <= k <= len(self.items):
            raise DataError(f"k = [{k}]: give a whole number from 1 to {len(self.items)} (items)")

    def _queries(self, users: Any, history: Any, unknown: str, with_histories: bool) -> Queries:
        if (users is None) == (history is None):
            raise DataError("give either users or a history")
        if history is not None:
            return self._new_users(history, unknown)
        names = several(users, "users")
        if unknown == "error":
            return self.known_users(self.users.find(names), with_histories)
        rows = np.array([self.users.rows.get(name, -1) for name in names], dtype=np.int64)
        return dataclasses.replace(self.known_users(rows, with_histories), names=names)

    def known_users(self, rows: np.ndarray, with_histories: bool = True) -> Queries:
        """The queries of users by their rows, int64 [n]; −1: of whom nothing is known.

        Args:
            with_histories: whether they have their training items, which vectors alone do not need.
        """
        if self.scorer.graph is not None and self.training is None:
            raise DataError(
                "the bundle was exported without histories, and the model scores with them"
            )
        vectors = None if self.user_vectors is None else self.user_vectors[rows]
        training = None
        if with_histories and self.training is not None:
            training = csr_rows(self.training, rows)
        seen = None if self.seen is None else csr_rows(self.seen, rows)
        return Queries(self.users.names[rows].tolist(), vectors, training, seen, rows < 0)

    def _new_users(self, history: Any, unknown: str) -> Queries:
        found = []
        if isinstance(history, str) or not isinstance(history, Iterable):
            raise DataError(f"history = [{history}]: give a list of item tokens for each user")
        for place, tokens in enumerate(history):
            if isinstance(tokens, str):
                raise DataError(f"history [{place}] is a text; give a list of item tokens")
            rows = self.items.find(tokens) if unknown == "error" else self.items.known(tokens)
            if not len(rows) and unknown == "error":
                raise DataError(
                    f"history [{place}] is empty; give items, or unknown='new' for popular items"
                )
            found.append(np.unique(rows))
        taken = csr_of_lists(found, len(self.items))
        vectors = None if self.user_vectors is None else self.fold_in(taken)
        names = list(range(len(found)))
        return Queries(names, vectors, taken, taken, np.diff(taken.indptr) == 0)

    def fold_in(self, histories: sp.csr_matrix) -> np.ndarray:
        """Vectors of new users, see :mod:`recbole_sigrec.serving.new_users`.

        Shapes: binary [n, n_items] → float32 [n, d].
        """
        scorer = self.scorer
        assert scorer.item_vectors is not None and scorer.fold_in_map is not None
        return aggregated(histories, scorer.item_vectors, scorer.item_counts) @ scorer.fold_in_map

    def _best(self, scores: np.ndarray, k: int, diversity: float) -> np.ndarray:
        if not diversity:
            return first_of_equals(scores, k)
        by = "behavior" if self.scorer.item_vectors is not None else "content"
        return diverse(scores, self._unit_vectors(by), k, diversity)

    # ---- items -------------------------------------------------------------------------------

    def similar(self, items: Any, k: int = 10, by: str = "behavior") -> pd.DataFrame:
        """The items most like some.

        Args:
            items: a token, or several.
            k: how many.
            by: ``behavior``: cosine of the learned vectors, or for a model of an item-item matrix
                its weights; ``content``: the weighted mean of the modalities' cosines; or a
                modality. Features are taken less their mean.

        Returns:
            A table with the columns item, similar, rank and score. There are fewer rows than k, or
            none, where items lack the features.
        """
        self._check_k(k)
        tokens = several(items, "items")
        rows = self.items.find(tokens)
        if by == "behavior" and self.scorer.item_vectors is None:
            scores = self.scorer.graph_block(rows, slice(None))
            scores[scores == 0] = -np.inf  # no edge
        else:
            vectors = self._unit_vectors(by)
            there: np.ndarray = np.any(vectors, axis=1)
            scores = np.ascontiguousarray(vectors[rows] @ vectors.T)
            scores[:, ~there] = -np.inf  # nothing is known of these
            scores[~there[rows]] = -np.inf
        scores[np.arange(len(rows)), rows] = -np.inf
        found = Ranking(list(tokens), [], [])
        found.add(self.items.names, scores, first_of_equals(scores, k))
        return found.frame().rename(columns={"user": "item", "item": "similar"})

    def _unit_vectors(self, by: str) -> np.ndarray:
        if by == "behavior" and self.scorer.item_vectors is not None:
            return self.scorer.unit_item_vectors
        if by == "content" and self.content.modalities:
            return self.content.joined
        if by in self.content.modalities:
            return self.content.centred(by)
        names = ["behavior", *(["content"] if self.content.modalities else ())]
        raise DataError(
            f"by = [{by}]: the bundle has {', '.join([*names, *self.content.modalities])}"
        )

    def explain(
        self, user: Any = None, items: Any = (), *, history: Iterable[Any] | None = None
    ) -> pd.DataFrame:
        """Why items are scored as they are: addends that sum to the score.

        Each addend has a part of the item: ``behavior``, a modality, ``item graph``, or ``vector``
        where the model tells no parts. And it has a source: an item of the history, or ``learned``.
        The latter is the rest of the user's vector. It comes from the whole user-item graph and is
        not linear in the user's own history, so that it cannot be divided among its items.

        Args:
            user: a token.
            items: a token, or several.
            history: in place of ``user``: the items that a new user took.

        Returns:
            A table with the columns item, part, source and addend.
        """
        tokens = list(dict.fromkeys(several(items, "items")))
        rows = self.items.find(tokens)
        users, histories = (None if one is None else [one] for one in (user, history))
        query = self._queries(users, histories, "error", True)
        table = addends(self.scorer, query, rows, is_new=history is not None)
        table["item"] = np.array(tokens, dtype=object)[table["item"].to_numpy(int)]
        sources = table["source"].to_numpy(int)
        names = np.where(sources >= 0, self.items.names[sources], "learned")
        return table.assign(source=names)

    def add_items(self, tokens: Sequence[Any], features: Mapping[str, Any]) -> None:
        """Put items into the rankings that nobody has taken, by their content.

        Their vectors, and their edges of the item graph, are those of similar items, see
        :mod:`recbole_sigrec.serving.new_items`. The scores of the others stay as they are.

        Args:
            tokens: new ones, of n items.
            features: modality → [n, d_m] of the space that the model was trained with; a zero row:
                the item lacks the modality. A modality that is left out is lacking in all.

        Raises:
            DataError: a token is there already or given twice, a modality is unknown, a shape is
                another, a value is not finite, or an item has no content at all.
        """
        names = several(tokens, "tokens")
        if not names:
            raise DataError("tokens is empty; give at least one item")
        known = [name for name in names if name in self.items.rows]
        if known or len(set(names)) < len(names):
            again = known or [name for name in names if names.count(name) > 1]
            raise DataError(f"item [{again[0]}] is there already; each token may be given once")
        added = self.content.read_new(names, features)
        weights = added_rows(self.content, added, self.scorer.item_counts > 0)
        content = self.content.extended(added)
        self.scorer = self.scorer.extended(weights)
        self.content = content
        self.items = Tokens("item", [*self.items.names, *names])
        self.columns = {
            column: [*values, *[None] * len(names)] for column, values in self.columns.items()
        }
        for name in ("training", "seen"):
            matrix = getattr(self, name)
            if matrix is not None:
                wider = matrix.copy()
                wider.resize(matrix.shape[0], len(self.items))
                setattr(self, name, wider)
