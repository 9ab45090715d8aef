"""Golden vectors: what the authors' own code gives on a tiny data set, and our models against it.

``tests/golden/<model>.npz``, or that file in the folder that RECBOLE_SIGREC_GOLDEN names, holds 60
users, 40 items, two modalities, all parameters, one batch, injected random draws, and in float64
the loss, its terms, the scores and gradients. Ids there begin with 0; here they follow the order
of appearance, after [PAD].
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from helpers_data import write_mmrec
from recbole.data.interaction import Interaction

from recbole_sigrec.graph import SparseGraph

FOLDER = Path(os.environ.get("RECBOLE_SIGREC_GOLDEN", Path(__file__).parent / "golden"))

TOLERANCE = 2e-6
"""The largest deviation, relative to the largest number of an array. Graphs are float32."""

N_USERS, N_ITEMS = 60, 40
MODALITIES = ("image", "text")

TABLES = {"user_id": "user_embedding.weight", "item_id": "item_embedding.weight"}
RAW = {"raw.image": "raw.image", "raw.text": "raw.text"}
"""Golden parameters that most models have."""

Get = Callable[[str], torch.Tensor]
Place = str | Callable[[Get], torch.Tensor]
"""Where a golden parameter is in a model: a parameter's name, or a function that makes a view of
parameters, or of their gradients, which it gets by name."""


class Golden:
    """A file of golden vectors, and a model of ours with its data set and its parameters.

    Args:
        arrays: the file.
        prepared: as the fixture ``prepare`` returns it.
        places: golden parameter (without ``param.``) → where it is.

    Attributes:
        arrays: name → array.
        model: in float64.
        users, items, nodes: golden row → our row.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], prepared: Any, places: dict[str, Place]):
        self.arrays, self.prepared, self._places = arrays, prepared, places
        self.model = prepared.model.double()
        dataset = prepared.dataset
        self.users, self.items = (
            torch.tensor([dataset.token2id(field, str(token)) for token in range(n)])
            for field, n in (("user_id", N_USERS), ("item_id", N_ITEMS))
        )
        self.nodes = torch.cat([self.users, self.items + N_USERS + 1])
        self._ours = {N_USERS + 1: self.users, N_ITEMS + 1: self.items}
        self._ours[N_USERS + N_ITEMS + 2] = self.nodes
        with torch.no_grad():
            for name, place in places.items():
                self._fill(self._at(place, self.model.get_parameter), self.tensor(f"param.{name}"))

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))

    def ours(self, name: str, axes: tuple[int, ...] = (0, 1)) -> torch.Tensor:
        """A golden array by our ids, with zeros for [PAD], along axes that are users or items."""
        value = self.tensor(name)
        sizes = {len(rows): size for size, rows in self._ours.items()}
        shape = [sizes.get(n, n) if axis in axes else n for axis, n in enumerate(value.shape)]
        return self._fill(value.new_zeros(shape), value)

    def theirs(self, ours: torch.Tensor) -> np.ndarray:
        """An array by our ids as a golden one."""
        for axis, size in enumerate(ours.shape):
            if size in self._ours:
                ours = ours.index_select(axis, self._ours[size])
        return ours.detach().numpy()

    def batch(self) -> Interaction:
        rows = {"user_id": self.users, "item_id": self.items, "neg_item_id": self.items}
        names = "batch_user", "batch_pos", "batch_neg"
        ids = {key: rows[key][self.tensor(name)] for key, name in zip(rows, names)}
        return Interaction(ids)

    def scores(self) -> torch.Tensor:
        """Of evaluation: [60 + 1, 40 + 1]."""
        self.model.eval()
        with torch.no_grad():
            users = Interaction({"user_id": torch.arange(N_USERS + 1)})
            return self.model.full_sort_predict(users).view(N_USERS + 1, -1)

    def gradient(self, name: str) -> torch.Tensor:
        """By a golden parameter, after ``backward``."""
        return self._at(self._places[name], lambda own: _gradient(self.model, own))

    def check(self, name: str, got: torch.Tensor | float) -> None:
        """See that a value of ours, by our ids, is the golden one."""
        expected = self.arrays[name]
        got = self.theirs(torch.as_tensor(got))
        assert got.shape == expected.shape, f"{name}: {got.shape} for {expected.shape}"
        check_error(name, got, expected)

    def check_terms(self, names: list[tuple[str, ...]], prefix: str = "") -> torch.Tensor:
        """See that each term of the loss is the sum of golden ones; returns the loss."""
        self.model.train()
        terms = self.model.calculate_loss(self.batch())
        terms = terms if isinstance(terms, tuple) else (terms.squeeze(),)  # RecBole's: [1]
        assert len(terms) == len(names)
        for term, parts in zip(terms, names):
            weights = (self.arrays[f"weight.{part}"] for part in parts)
            found = (self.arrays[f"{prefix}term.{part}"] for part in parts)
            expected = sum(weight * part for weight, part in zip(weights, found))
            check_error(" + ".join(parts), np.array(term.item()), expected)
        loss = sum(terms)
        self.check(f"{prefix}loss", loss)
        return loss

    def _at(self, place: Place, get: Get) -> torch.Tensor:
        return get(place) if isinstance(place, str) else place(get)

    def _fill(self, ours: torch.Tensor, golden: torch.Tensor) -> torch.Tensor:
        """Write a golden array into one of ours; [PAD]'s rows stay as they are."""
        rows = [
            torch.arange(size) if size == golden.shape[axis] else self._ours[size]
            for axis, size in enumerate(ours.shape)
        ]
        ours[torch.meshgrid(*rows, indexing="ij") if rows else ()] = golden
        return ours


def check_error(name: str, got: np.ndarray, expected: np.ndarray) -> None:
    """See that two arrays are the same but for rounding."""
    error = np.abs(got - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCE, f"{name}: relative error {error:.1e}"


def _gradient(model: torch.nn.Module, name: str) -> torch.Tensor:
    gradient = model.get_parameter(name).grad
    assert gradient is not None, f"{name} has no gradient"
    return gradient


def layer(golden: str, ours: str) -> dict[str, Place]:
    """The weight and bias of a linear layer."""
    return {f"{golden}.{part}": f"{ours}.{part}" for part in ("weight", "bias")}


def layers(golden: str, ours: str) -> dict[str, Place]:
    """Those of each modality: ``{name}`` in the names, or its place ``{n}``."""
    found: dict[str, Place] = {}
    for n, name in enumerate(MODALITIES):
        found.update(layer(*(pattern.format(name=name, n=n) for pattern in (golden, ours))))
    return found


@contextlib.contextmanager
def kept(masks: Sequence[torch.Tensor]) -> Iterator[None]:
    """While the block runs, the calls of ``F.dropout`` that drop anything keep what the masks say,
    one mask after the other."""
    left, plain = iter(masks), F.dropout

    def dropout(x: torch.Tensor, p: float = 0.5, training: bool = True) -> torch.Tensor:
        return x * next(left) / (1 - p) if training and p > 0 else plain(x, p, training)

    with patch.object(F, "dropout", dropout):
        yield


class GoldenVectors:
    """The tests of a model against its golden vectors; a subclass says what stands where.

    Attributes:
        model: the name of the model.
        file: that of its vectors, by default the model's in small letters.
        variant: one whose own results, ``variant.<variant>.<name>``, stand for the main ones; its
            ``rate`` for ``cfg.rate``, which is 0 otherwise.
        keys: config key → the name of its value in the vectors (``cfg.<name>``).
        fixed: config key → value, where the vectors have none.
        parameters: see :class:`Golden`.
        terms: the golden terms that make each of the loss's.
        wrong: config key → another value, which the vectors must refuse.
    """

    model: str
    file: str = ""
    variant: str = ""
    keys: ClassVar[dict[str, str]] = {}
    fixed: ClassVar[dict[str, Any]] = {}
    parameters: ClassVar[dict[str, Place]] = {}
    terms: ClassVar[list[tuple[str, ...]]] = []
    wrong: ClassVar[dict[str, Any]] = {}

    @contextlib.contextmanager
    def injected(self, golden: Golden, prefix: str = "") -> Iterator[None]:
        """While the block runs, the model draws what the vectors name; by default it draws none."""
        yield

    def arrange(self, golden: Golden) -> None:
        """Give the model what the vectors' keys and parameters leave open; by default nothing."""

    def middle(self, golden: Golden) -> dict[str, torch.Tensor]:
        """Name (``mid.<name>``) → what the model has in its place, by our ids."""
        return {}

    def arrays(self) -> dict[str, np.ndarray]:
        """Those of the file, by name."""
        path = FOLDER / f"{self.file or self.model.lower()}.npz"
        if not path.is_file():
            pytest.skip(f"there is no {path}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        start = f"variant.{self.variant}."
        own = {name.removeprefix(start): arrays[name] for name in arrays if name.startswith(start)}
        return {**arrays, **own, "cfg.rate": own.get("rate", np.zeros(()))}

    @pytest.fixture
    def build(self, tmp_path, make_config, prepare) -> Callable[..., Golden]:
        """``build(**overrides)`` → the vectors, and the model with their keys and parameters."""
        arrays = self.arrays()

        def build(**overrides: Any) -> Golden:
            keys = {key: arrays[f"cfg.{name}"].item() for key, name in self.keys.items()}
            folder = write_vectors(tmp_path / "data", arrays)
            given = {"topk": [5, 20], **keys, **self.fixed, **overrides}
            prepared = prepare(make_config(self.model, folder, **given))
            golden = Golden(arrays, prepared, self.parameters)
            self.arrange(golden)
            return golden

        return build

    def test_golden_loss_and_terms(self, build):
        golden = build()
        with self.injected(golden):
            golden.check_terms(self.terms)

    def test_golden_gradients(self, build):
        golden = build()
        with self.injected(golden):
            golden.check_terms(self.terms).backward()
        names = [name.removeprefix("grad.") for name in golden.arrays if name.startswith("grad.")]
        assert names
        for name in names:
            golden.check(f"grad.{name}", golden.gradient(name))

    def test_golden_scores(self, build):
        golden = build()
        golden.check("scores", golden.scores())

    def test_golden_intermediate_results(self, build):
        golden = build()
        for name, value in self.middle(golden).items():
            golden.check(f"mid.{name}", value)

    def test_golden_vectors_refuse_other_values(self, build):
        assert self.wrong
        for key, value in self.wrong.items():
            golden = build(**{key: value})
            with pytest.raises(AssertionError, match="relative error"), self.injected(golden):
                golden.check_terms(self.terms)
                golden.check("scores", golden.scores())


def write_vectors(root: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """The data set of golden vectors in MMRec's layout; the cold items are those of evaluation."""
    cold = arrays["cold_items"]
    parts = [(arrays["train_user"], arrays["train_item"], 0)]
    parts += [(np.arange(len(cold)) + label, cold, label) for label in (1, 2)]
    columns = "userID", "itemID", "x_label"
    frames = [pd.DataFrame(dict(zip(columns, part))) for part in parts]
    frame = pd.concat(frames).sample(frac=1.0, random_state=0)  # other ids than the vectors'
    features = {name: arrays[f"feat_{name}"].astype(np.float32) for name in ("image", "text")}
    return write_mmrec(root, "golden", frame, features)


def dense(graphs: Mapping[str, SparseGraph]) -> dict[str, torch.Tensor]:
    """Graphs as dense matrices, float64."""
    return {
        name: graph.matmul(torch.eye(graph.shape[1], dtype=torch.float64))
        for name, graph in graphs.items()
    }
