"""RecBole's models that need a repair, and what a checkpoint must know of others.

The registry of models takes a class of this file in place of RecBole's class of that name.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import recbole.model.general_recommender as general
import scipy.sparse as sp
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.model.general_recommender import nncf
from recbole.model.general_recommender.itemknn import ComputeSimilarity
from recbole.utils import InputType

from recbole_sigrec.errors import ConfigError, SIGRecError
from recbole_sigrec.extras import need
from recbole_sigrec.graph import bipartite_graph, interaction_matrix


class NormalizedAdjacency(GeneralRecommender):
    """RecBole's ``get_norm_adj_mat`` on our graph code, as a mixin.

    LightGCN, NGCF and NCL fill a SciPy ``dok_matrix`` through a private method that SciPy 1.13
    removed. The matrix is the same but for RecBole's 1e-7 added to each degree.
    """

    interaction_matrix: Any  # SciPy's

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


class NGCF(NormalizedAdjacency, general.NGCF):
    __doc__ = general.NGCF.__doc__


class NCL(NormalizedAdjacency, general.NCL):
    __doc__ = general.NCL.__doc__

    def __init__(self, config: Any, dataset: Any):
        need("faiss", "model NCL")
        super().__init__(config, dataset)
        most = min(self.n_users, self.n_items)  # with row 0, the padding: it is clustered too
        if self.k > most:
            raise ConfigError(
                f"config key [num_clusters] = [{self.k}]: data set [{config['dataset']}] has "
                f"{self.n_users - 1} users and {self.n_items - 1} items to cluster; give at most "
                f"{most}"
            )


class DGCF(general.DGCF):
    """RecBole's DGCF where an epoch has few batches.

    The original draws as many users and items for its correlation loss as the larger kind has per
    batch, which may be more than there are of the smaller one.
    """

    def __init__(self, config: Any, dataset: Any):
        super().__init__(config, dataset)
        self.cor_batch_size = min(self.cor_batch_size, self.n_users, self.n_items)


class NNCF(general.NNCF):
    """RecBole's NNCF with ``neigh_info_method: knn``.

    The original gives ``compute_similarity`` the method, which RecBole 1.2.1 takes when the object
    is made.
    """

    def get_neigh_knn(self) -> Any:
        """The neighbours of users and items: two int64 [n, neigh_num]."""
        try:
            nncf.ComputeSimilarity = _Similarity
            return super().get_neigh_knn()
        finally:
            nncf.ComputeSimilarity = ComputeSimilarity


class NeuMF(general.NeuMF):
    __doc__ = general.NeuMF.__doc__

    def __init__(self, config: Any, dataset: Any):
        if not (config["mf_train"] or config["mlp_train"]):
            raise ConfigError("config keys [mf_train] and [mlp_train] are False; one must be True")
        super().__init__(config, dataset)


class _Similarity:
    def __init__(self, matrix: sp.csr_matrix, topk: int):
        self.matrix, self.topk = matrix, topk

    def compute_similarity(self, method: str) -> Any:
        return ComputeSimilarity(self.matrix, self.topk, method=method).compute_similarity()


class Pop(general.Pop):
    """RecBole's Pop with the count of an item's training pairs.

    The original adds one per batch, however often the item is in it (an indexed assignment does not
    accumulate), and counts drawn negatives too (``properties/model/Pop.yaml`` draws none).
    """

    def __init__(self, config: Any, dataset: Any):
        if config["train_neg_sample_args"]["dynamic"]:
            raise ConfigError(
                "config key [train_neg_sample_args] has dynamic: True, and Pop has no scores by "
                "which negatives could be chosen before it has counted; leave the key out"
            )
        super().__init__(config, dataset)

    def calculate_loss(self, interaction: Interaction) -> torch.Tensor:
        """Count; the loss is zero."""
        items = torch.as_tensor(interaction[self.ITEM_ID])
        self.item_cnt += torch.bincount(items, minlength=self.n_items)[:, None]
        self.max_cnt = self.item_cnt.max(dim=0).values
        return torch.zeros((), device=self.device, requires_grad=True)


@contextlib.contextmanager
def model_errors(config: Any) -> Iterator[None]:
    """While a model is made: what one of RecBole's raises becomes a ConfigError."""
    try:
        yield
    except SIGRecError:
        raise
    except Exception as error:
        if not issubclass(config.model_class, getattr(general, config["model"], ())):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error}" if str(error) else last.line
        raise ConfigError(
            f"model [{config['model']}] of RecBole cannot be made with this config: {what} "
            f"({Path(last.filename).name}, line {last.lineno})"
        ) from error


def check_labels(model: Any, config: Any, train: Any) -> None:
    """See that a model that learns from labels finds some.

    Args:
        model: the model; RecBole's that read labels have an attribute LABEL, the field.
        config: its config.
        train: the training part.

    Raises:
        ConfigError: no negatives are drawn, and the data set has no labels.
    """
    drawn = config["train_neg_sample_args"]["distribution"] != "none"
    pointwise = config["MODEL_INPUT_TYPE"] == InputType.POINTWISE
    label = getattr(model, "LABEL", None)
    if label is not None and pointwise and not drawn and label not in train.inter_feat:
        raise ConfigError(
            f"config key [train_neg_sample_args] = [None]: {config['model']} learns from labels, "
            f"and data set [{config['dataset']}] has no field [{label}]. Leave the key out, so "
            f"that negatives are drawn; or make labels of ratings: threshold: {{rating: 3}}; or "
            f"name the field under load_col"
        )


TRAINING_STATE: dict[str, tuple[str, ...]] = {
    "LINE": ("random_list", "random_pr"),
    "MultiVAE": ("update",),
    "MacridVAE": ("update",),
    "DiffRec": ("Lt_history", "Lt_count"),
    "LDiffRec": ("Lt_history", "Lt_count", "update_count", "update_count_vae"),
}
"""What RecBole's models keep from step to step beside their parameters: name → attributes."""


def why_not_resumed(config: Any) -> str:
    """Why a run of RecBole's model cannot go on from a checkpoint; empty where it can."""
    if config["model"] == "RecVAE":
        return "it has two optimizers, of which a checkpoint keeps one"
    if config["model"] == "NCL" and config["m_step"] > 1:
        return "its clusters, made anew each m_step epochs, are no part of a checkpoint"
    return ""
