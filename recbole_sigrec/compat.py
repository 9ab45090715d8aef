"""RecBole 1.2.1 on current libraries: every repair that it needs, and only here.

Nothing is patched when a module is imported. What can be done by a subclass is (the dataset's
missing-value filling, the collector, the trainer, the models' adjacency matrices); the rest is
:func:`numpy_aliases`, which RecBole itself does in ``Config.compatibility_settings`` and which
fails there on NumPy 2, :func:`one_tensorboard` and :func:`plain_tables`.
"""

from __future__ import annotations

import contextlib
import csv
import types

import numpy as np
import pandas as pd
import recbole.data.dataset.dataset
import recbole.trainer.trainer
import scipy.sparse as sp
import torch
from recbole.evaluator import Collector as RecBoleCollector
from recbole.utils import FeatureType

from recbole_sigrec import distributed
from recbole_sigrec.graph import bipartite_graph, interaction_matrix
from recbole_sigrec.ranking import top_items

_ALIASES = {
    "bool": np.bool_,
    "int": np.int_,
    "float": np.float64,
    "complex": np.complex128,
    "object": np.object_,
    "str": np.str_,
    "long": np.int_,
    "unicode": np.str_,
}


def numpy_aliases() -> None:
    """Give NumPy the names that RecBole's code uses and NumPy no longer has (``np.float``, …).

    RecBole's metrics, Interaction and layers use them. Called where a Config is made and where a
    trainer is, since a Config that was unpickled has not been through its constructor. Names that
    NumPy has are left alone.
    """
    for name, value in _ALIASES.items():
        if name not in np.__dict__:
            setattr(np, name, value)


@contextlib.contextmanager
def one_tensorboard():
    """While a trainer of RecBole's is made: only the first of several processes opens a writer."""
    module = recbole.trainer.trainer
    original = module.get_tensorboard
    silent = types.SimpleNamespace(add_scalar=lambda *_: None, add_hparams=lambda *_: None)
    try:
        if not distributed.is_first():
            module.get_tensorboard = lambda logger: silent
        yield
    finally:
        module.get_tensorboard = original


@contextlib.contextmanager
def plain_tables():
    """While RecBole reads atomic files: in those separated by tabs quotation marks are text, and in
    all of them only nothing is a missing id.

    pandas' defaults, which it uses, join lines from one quotation mark to the next, and take the
    ids NA, None, nan and null for missing ones.

    Raises:
        ValueError: all ids of a file separated by tabs are in quotation marks.
    """
    module = recbole.data.dataset.dataset
    original = module.pd

    def read_csv(file, dtype, delimiter, **how):
        missing = {name: _MISSING if kind is np.float64 else [] for name, kind in dtype.items()}
        how = {**how, "keep_default_na": False, "na_values": missing}
        if delimiter == "\t":
            how["quoting"] = csv.QUOTE_NONE
        frame = original.read_csv(file, dtype=dtype, delimiter=delimiter, **how)
        for name in frame:
            if name.endswith(f":{FeatureType.TOKEN.value}"):
                if delimiter == "\t" and len(frame) and frame[name].str.fullmatch('".*"').all():
                    raise ValueError(
                        f"all of column [{name}] in {file} is in quotation marks, which are part "
                        f"of the text where tabs separate; remove them"
                    )
                frame[name] = frame[name].where(frame[name] != "")
        return frame

    try:
        module.pd = types.SimpleNamespace(**{**vars(original), "read_csv": read_csv})
        yield
    finally:
        module.pd = original


_MISSING = [  # what pandas takes for a missing number
    *("", "NaN", "-NaN", "nan", "-nan", "NA", "<NA>", "N/A", "n/a", "#N/A", "#NA", "#N/A N/A"),
    *("NULL", "null", "None", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
]


def fill_missing(feat: pd.DataFrame, field2type: dict) -> pd.DataFrame:
    """RecBole's missing-value rule without the in-place ``fillna`` that pandas 3 ignores.

    Tokens become 0 ([PAD]), floats the column's mean, sequences empty.
    """
    for field in feat:
        kind = field2type[field]
        if kind == FeatureType.TOKEN:
            feat[field] = feat[field].fillna(0)
        elif kind == FeatureType.FLOAT:
            feat[field] = feat[field].fillna(feat[field].mean())
        else:
            dtype = np.int64 if kind == FeatureType.TOKEN_SEQ else np.float64
            feat[field] = [np.array([], dtype) if isinstance(x, float) else x for x in feat[field]]
    return feat


class Collector(RecBoleCollector):
    """RecBole's collector, repaired and without its dense masks; it joins processes' users.

    The original calls ``.cpu()`` on counters and ints too, so that ItemCoverage, AveragePopularity,
    GiniIndex and TailPercentage crash; and for each batch it builds an integer matrix of the
    scores' size to see which of the top items are positives.
    """

    def eval_batch_collect(self, scores_tensor, interaction, positive_u, positive_i):
        needs_topk = self.register.need("rec.topk")
        if not needs_topk or any(
            self.register.need(f"rec.{other}") for other in ("items", "meanrank", "score")
        ):
            super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
            return
        n_users, n_items = scores_tensor.shape
        top = top_items(scores_tensor, max(self.topk))  # [n_users, k]
        positive_u = positive_u.to(top.device)
        row = torch.arange(n_users, device=top.device)[:, None]
        positive = torch.unique(positive_u * n_items + positive_i.to(top.device))
        hit = torch.isin(row * n_items + top, positive)
        size = torch.bincount(positive // n_items, minlength=n_users)[:, None]  # positives per user
        self.data_struct.update_tensor("rec.topk", torch.cat([hit.int(), size.int()], dim=1))

    def get_data_struct(self):
        plain = {
            key: value
            for key, value in self.data_struct._data_dict.items()
            if not isinstance(value, torch.Tensor)
        }
        for key in plain:
            del self.data_struct[key]
        struct = super().get_data_struct()
        for key, value in plain.items():
            self.data_struct.set(key, value)
            struct.set(key, value)
        per_user = set(struct._data_dict) - set(self.data_struct._data_dict)
        parts = distributed.gather({key: struct[key] for key in per_user})
        for key in set().union(*parts) if len(parts) > 1 else ():
            struct.set(key, torch.cat([part[key] for part in parts if key in part]))
        return struct


class NormalizedAdjacency:
    """Mixin: RecBole's ``get_norm_adj_mat`` on our graph code.

    LightGCN, NGCF and NCL fill a SciPy ``dok_matrix`` through a private method that SciPy 1.13
    removed. The matrix is the same but for RecBole's 1e-7 added to each degree.
    """

    def adjacency(self) -> sp.csr_matrix:
        """Float32 [n_users + n_items, n_users + n_items]."""
        pairs = self.interaction_matrix.tocoo()
        matrix = interaction_matrix(pairs.row, pairs.col, self.n_users, self.n_items)
        adjacency = bipartite_graph(matrix)
        if adjacency.nnz != 2 * matrix.nnz or matrix.nnz == 0:
            raise RuntimeError(
                f"the adjacency matrix has {adjacency.nnz} entries for {matrix.nnz} training pairs"
            )
        return adjacency

    def get_norm_adj_mat(self) -> torch.Tensor:
        """Sparse COO float32 [n_users + n_items, n_users + n_items]."""
        adjacency = self.adjacency().tocoo()
        index = torch.from_numpy(np.stack([adjacency.row, adjacency.col]).astype(np.int64))
        values = torch.from_numpy(adjacency.data)
        coo = torch.sparse_coo_tensor(index, values, adjacency.shape, check_invariants=False)
        return coo.coalesce()


class CountedPopularity:
    """Mixin: RecBole's Pop with the count of an item's training pairs.

    The original adds one per batch, however often the item is in it (an indexed assignment does not
    accumulate), and counts drawn negatives too (``properties/model/Pop.yaml`` draws none).
    """

    def calculate_loss(self, interaction) -> torch.Tensor:
        """Count; the loss is zero."""
        items = interaction[self.ITEM_ID]
        self.item_cnt += torch.bincount(items, minlength=self.n_items)[:, None]
        self.max_cnt = self.item_cnt.max(dim=0).values
        return torch.zeros((), device=self.device, requires_grad=True)


REPAIRS = {
    **dict.fromkeys(("NGCF", "NCL"), NormalizedAdjacency),
    "Pop": CountedPopularity,
}
"""RecBole's models that need a repair: name → mixin."""

BROKEN_MODELS = {
    **dict.fromkeys(
        ("SpectralCF", "GCMC", "KGIN", "MCCLK"),
        "it builds its graph through scipy.sparse.dok_matrix._update, which SciPy 1.13 removed",
    ),
    "RaCT": "its trainer of RecBole's pretrains for 150 epochs whatever `epochs` says, into a "
    "pickled file whose name all of its runs share",
}
"""RecBole's models that do not run here and that we do not repair: name → why."""

TRAINING_STATE = {
    "MultiVAE": ("update",),
    "MacridVAE": ("update",),
    "DiffRec": ("Lt_history", "Lt_count"),
    "LDiffRec": ("Lt_history", "Lt_count", "update_count", "update_count_vae"),
}
"""What RecBole's models keep from step to step beside their parameters: name → attributes."""


def why_not_resumed(config) -> str:
    """Why a run of RecBole's model cannot go on from a checkpoint; empty where it can."""
    if config["model"] == "RecVAE":
        return "it has two optimizers, of which a checkpoint keeps one"
    if config["model"] == "NCL" and config["m_step"] > 1:
        return "its clusters, made anew each m_step epochs, are no part of a checkpoint"
    return ""
