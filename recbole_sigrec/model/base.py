"""What all multimodal models share: data, graphs, cached representations, prediction."""

from __future__ import annotations

import numpy as np
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import nn

from recbole_sigrec import distributed
from recbole_sigrec.config import Keys
from recbole_sigrec.errors import ConfigError, DataError
from recbole_sigrec.gemm import Linear, matmul_nt
from recbole_sigrec.graph import (
    SparseGraph,
    bipartite_graph,
    interaction_matrix,
    mean_propagation,
)
from recbole_sigrec.model.item_scores import ItemScores, spread


class MultimodalRecommender(GeneralRecommender):
    """Base of the models that score by the product of a user's and an item's representation.

    A subclass names its typed config as ``Keys``, builds its layers in ``__init__`` and defines
    ``representations()`` (and ``calculate_loss``). The representations of evaluation are computed
    once and dropped as soon as training goes on or parameters are loaded; they are not part of a
    checkpoint.

    Attributes:
        keys: the model's typed config.
        modalities: names of the modalities in use, in order.
        features: modality name → float32 [n_items, d_m] (row 0, the padding item, is zero).
        mask: modality name → bool [n_items], which items have the modality; also a buffer
            ``has_<modality>``.
        interactions: binary float32 CSR [n_users, n_items] of the training pairs.
        item_scores: what an item graph adds to the scores, if a model sets it.
    """

    input_type = InputType.PAIRWISE
    Keys = Keys
    needs_modalities = True
    loss_in_shares = False
    """Whether ``calculate_loss`` computes :meth:`share` of the batch alone, so that the losses of
    all processes add up; else each process of several computes the loss of the whole batch."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.config = config
        self.keys = self.Keys.read(config)
        self.features = dict(getattr(dataset, "modality_features", {}))
        self.mask = dict(getattr(dataset, "modality_mask", {}))
        self.modalities = list(self.features)
        for name, mask in self.mask.items():
            self.register_buffer(f"has_{name}", mask, persistent=False)
        if self.needs_modalities and not self.modalities:
            raise DataError(
                f"{type(self).__name__} needs at least one modality and data set "
                f"[{config['dataset']}] has none: put <modality>_feat.npy files into "
                f"{config['data_path']}, or name item columns under `item_modalities`"
            )
        self.interactions = interaction_matrix(
            np.asarray(dataset.inter_feat[dataset.uid_field]),
            np.asarray(dataset.inter_feat[dataset.iid_field]),
            self.n_users,
            self.n_items,
        )
        self.item_scores: ItemScores | None = None
        self._cached = None
        self.register_load_state_dict_post_hook(_drop_cached)  # also as part of another module

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The final users [n_users, d] and items [n_items, d]; score = their product."""
        raise NotImplementedError

    def masked(self, name: str, x: torch.Tensor, items=None, otherwise=0.0) -> torch.Tensor:
        """Rows of items, with another number in those that lack a modality, as [PAD] does.

        Shapes: x [n, d], items int64 [n] (default: all, in order) → [n, d].
        """
        has = getattr(self, f"has_{name}")
        return x.where((has if items is None else has[items])[:, None], otherwise)

    @staticmethod
    def share(n: int) -> slice:
        """The rows, of ``n``, whose terms of the loss this process computes; all in one process.

        Noise is drawn for all rows, so that it is the same in all processes and in one.
        """
        return distributed.share(n)

    def weights_of_modalities(self, given: dict[str, float] | None) -> dict[str, float]:
        """A weight for each modality, which add up to one; none given: all are equal.

        Raises:
            ConfigError: a modality has no weight, one is negative, or all are zero.
        """
        given = given or dict.fromkeys(self.modalities, 1.0)
        weights = {name: given.get(name, -1.0) for name in self.modalities}
        if min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ConfigError(
                f"config key [modality_weights] = [{given}]: give each of the modalities "
                f"{', '.join(self.modalities)} a weight of at least 0, and one of them more"
            )
        return {name: weight / sum(weights.values()) for name, weight in weights.items()}

    def on_epoch_start(self, epoch: int) -> None:
        """Called by the trainer before each epoch (warm-ups, edge pruning)."""

    def train(self, mode: bool = True):
        if mode:
            self._cached = None
        return super().train(mode)

    def _final(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.training or torch.is_grad_enabled():
            return self.representations()
        if self._cached is None:
            self._cached = self.representations()
        return self._cached

    def predict(self, interaction):
        """Scores of user-item pairs: [batch]."""
        users, items = self._final()
        user, item = interaction[self.USER_ID], interaction[self.ITEM_ID]
        queries = users[user]
        scores = (queries * items[item]).sum(dim=1)
        if self.item_scores is None:
            return scores
        return scores + spread(queries, items) * self.item_scores.of_pairs(user, item)

    def full_sort_predict(self, interaction):
        """Scores of all items for each user: [batch · n_items], as RecBole expects it."""
        users, items = self._final()
        user = interaction[self.USER_ID]
        queries = users[user]
        scores = matmul_nt(queries, items).view(-1)
        if self.item_scores is None:
            return scores
        row, item, more = self.item_scores.of_users(user)
        return scores.index_add_(0, row * len(items) + item, spread(queries, items)[row] * more)


def _drop_cached(model: MultimodalRecommender, _incompatible_keys) -> None:
    """Called by torch when parameters have been loaded."""
    model._cached = None


class LightGCNRecommender(MultimodalRecommender):
    """Base of the models that have LightGCN on the user-item graph (arXiv 2002.02126).

    Attributes:
        user_embedding, item_embedding: tables of ``embedding_size`` d.
        graph: the normalised user-item graph, users first.
    """

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.user_embedding = xavier_embedding(self.n_users, self.keys.embedding_size)
        self.item_embedding = xavier_embedding(self.n_items, self.keys.embedding_size)
        self.graph = SparseGraph(bipartite_graph(self.interactions))

    def ego(self) -> torch.Tensor:
        """The embeddings of users and items, stacked: [n_users + n_items, d]."""
        return torch.cat([self.user_embedding.weight, self.item_embedding.weight])

    def lightgcn(self, n_layers: int, graph=None) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean over layers 0 to ``n_layers`` on a graph, by default the whole.

        Returns:
            users [n_users, d], items [n_items, d].
        """
        final = mean_propagation(self.graph if graph is None else graph, self.ego(), n_layers)
        return final.split([self.n_users, self.n_items])


class RawFeatures(nn.Module):
    """The features of each modality by its name: trained, or constant.

    Constant ones share the data set's memory and are not part of a checkpoint.

    Args:
        features: modality name → float32 [n_items, d_m].
    """

    def __init__(self, features: dict[str, torch.Tensor], trained: bool):
        super().__init__()
        for name, values in features.items():
            if trained:
                self.register_parameter(name, nn.Parameter(values.clone()))
            else:
                self.register_buffer(name, values, persistent=False)

    def __getitem__(self, name: str) -> torch.Tensor:
        return getattr(self, name)


def projections(features: dict[str, torch.Tensor], size: int) -> nn.ModuleDict:
    """A linear layer for each modality, from its d_m dimensions to ``size``."""
    return nn.ModuleDict({name: Linear(x.shape[1], size) for name, x in features.items()})


def xavier_embedding(n: int, d: int) -> nn.Embedding:
    """An embedding table, Xavier-uniform as RecBole's and the field's models use it."""
    table = nn.Embedding(n, d)
    nn.init.xavier_uniform_(table.weight)
    return table


def xavier_linear(module: nn.Module) -> None:
    """Start the weight of every linear layer in a module Xavier-uniform."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
