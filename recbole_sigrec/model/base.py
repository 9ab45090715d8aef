"""What all multimodal models share: data, graphs, cached representations, prediction."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import scipy.sparse as sp
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import nn
from typing_extensions import Self

from recbole_sigrec.config import Config, Keys, setting
from recbole_sigrec.data.dataset import MultimodalDataset, interactions_of
from recbole_sigrec.errors import DataError
from recbole_sigrec.graph import (
    SparseGraph,
    bipartite_graph,
    mean_propagation,
)
from recbole_sigrec.kernels.held_out import HeldOut
from recbole_sigrec.kernels.products import Linear, matmul_nt
from recbole_sigrec.model.batch import Interaction
from recbole_sigrec.model.item_scores import ItemScores, spread, validation_pairs
from recbole_sigrec.parallel import distributed

K = TypeVar("K", bound=Keys)


class MultimodalRecommender(GeneralRecommender, Generic[K]):
    """Base of the models that score by the product of a user's and an item's representation.

    A subclass names its typed config as ``Keys`` (for type checkers as the parameter K, too),
    builds its layers in ``__init__`` and defines ``representations()`` (and ``calculate_loss``).
    The representations of evaluation are computed once and dropped as soon as training goes on or
    parameters are loaded; they are not part of a checkpoint.

    Attributes:
        keys: the model's typed config.
        modalities: names of the modalities in use, in order.
        features: modality name → float32 [n_items, d_m] (row 0, the padding item, is zero).
        mask: modality name → bool [n_items], which items have the modality; also a buffer
            ``has_<modality>``.
        interactions: binary float32 CSR [n_users, n_items] of the training pairs.
        item_scores: what an item graph adds to the scores, if a model sets it.
        frozen: whether representations carry no gradient: once loaded, until training goes on.
        own_optimizers: name → an optimiser that the model steps itself, in ``on_epoch_start`` or
            ``on_batch_start``. The trainer leaves its parameters alone, and keeps its state in the
            checkpoint for an exact resume.
    """

    input_type = InputType.PAIRWISE
    Keys: type[K] = Keys  # pyright: ignore[reportAssignmentType]  (for models without keys)
    needs_modalities: bool = True
    history_parts: tuple[str, ...] = ()
    """Those of :meth:`item_parts` that a user's representation has from the training items alone:
    the sum of their rows, each times 1/√(|h| c_j) for a history h and an item in c_j histories."""
    loss_in_shares: bool = False
    """Whether ``calculate_loss`` computes :meth:`share` of the batch alone, so that the losses of
    all processes add up; else each process of several computes the loss of the whole batch."""
    divided_tables: tuple[str, ...] = ()
    """The names of the parameters [n, d] that several processes divide by columns in an epoch: see
    :mod:`recbole_sigrec.parallel.columns`. All of the model that meets them then must know it."""
    kept_buffers: tuple[str, ...] = ()
    """The names of the persistent buffers, which evaluation or an exact resume needs beside the
    parameters. All are part of a checkpoint, and have the same shape from the start."""

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        self.config = config
        self.keys: K = self.Keys.read(config)
        self.features: dict[str, torch.Tensor] = dict(getattr(dataset, "modality_features", {}))
        self.mask: dict[str, torch.Tensor] = dict(getattr(dataset, "modality_mask", {}))
        self.modalities = list(self.features)
        for name, mask in self.mask.items():
            self.register_buffer(f"has_{name}", mask, persistent=False)
        if self.needs_modalities and not self.modalities:
            raise DataError(
                f"{type(self).__name__} needs at least one modality and data set "
                f"[{config['dataset']}] has none: put <modality>_feat.npy files into "
                f"{config['data_path']}, or name item columns under `item_modalities`"
            )
        self.interactions: sp.csr_matrix = interactions_of(dataset)
        self.item_scores: ItemScores | None = None
        self._held_out: HeldOut | None = None
        self.frozen = False
        self.own_optimizers: dict[str, torch.optim.Optimizer] = {}
        self._cached: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] | None = None
        self.register_load_state_dict_post_hook(_drop_cached)  # also as part of another module

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "representations" in vars(cls):
            cls.representations = _without_gradient_if_frozen(cls.representations)

    def representations(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The final users [n_users, d] and items [n_items, d]; score = their product.

        A frozen model's carry no gradient, whatever a subclass does.
        """
        raise NotImplementedError

    def item_parts(self) -> dict[str, torch.Tensor]:
        """Addends [n_items, d] of the items' representations by name, to explain scores.

        None where the model tells none.
        """
        return {}

    def users_and_items(self, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The two parts of a table [n_users + n_items, d]."""
        users, items = table.split([self.n_users, self.n_items])
        return users, items

    def masked(
        self,
        name: str,
        x: torch.Tensor,
        items: torch.Tensor | None = None,
        otherwise: float = 0.0,
    ) -> torch.Tensor:
        """Rows of items, with another number in those that lack a modality, as [PAD] does.

        Shapes: x [n, d], items int64 [n] (default: all, in order) → [n, d].
        """
        has = getattr(self, f"has_{name}")
        return x.where((has if items is None else has[items])[:, None], otherwise)

    def nodes_with(self, name: str) -> torch.Tensor:
        """All users, and the items that have a modality: bool [n_users + n_items]."""
        has = getattr(self, f"has_{name}")
        return torch.cat([torch.arange(self.n_users, device=has.device) > 0, has])

    @staticmethod
    def share(n: int) -> slice:
        """The rows, of ``n``, whose terms of the loss this process computes; all in one process.

        Noise is drawn for all rows, so that it is the same in all processes and in one.
        """
        return distributed.share(n)

    @staticmethod
    def equal_part(whole: torch.Tensor) -> torch.Tensor:
        """This process's part of what all processes compute whole, as terms of whole tables."""
        return whole / distributed.place().world_size

    def on_epoch_start(self, epoch: int) -> None:
        """Called by the trainer before each epoch (warm-ups, edge pruning)."""

    def on_batch_start(self, interaction: Interaction) -> None:
        """Called by the trainer before each batch's loss: a step of an optimiser of one's own."""

    def on_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Called by the trainer with its optimiser, once it is made: a model may hook its steps."""

    def on_validation_start(self, valid: MultimodalDataset) -> float | None:
        """Called by the trainer before each validation, in evaluation mode, with its part.

        Where the item scores' weight is automatic, it is chosen here.

        Returns:
            How well what is learned ranks without item scores, to wait for it before training
            stops early; ``None``: nothing to wait for.
        """
        labeled = self.config["eval_args"]["mode"]["valid"] == "labeled"
        if self.item_scores is None or not self.item_scores.automatic or labeled:
            return None
        if self._held_out is None:
            self._held_out = validation_pairs(self.config, self.interactions, valid)
        users, items, deviation = self._final()
        assert deviation is not None
        found = self.item_scores.by_weight(self._held_out, users, items, deviation)
        found = distributed.gather(found)[0]
        self.item_scores.weight = max(found, key=found.__getitem__)
        return found[0.0]

    def chosen_values(self) -> dict[str, Any]:
        """Config key → value of what the model has chosen for ``auto``, as it now stands."""
        if self.item_scores is None or not self.item_scores.automatic:
            return {}
        return {"item_score_weight": self.item_scores.weight}

    def take_chosen_values(self, values: Mapping[str, Any]) -> None:
        """Take over what :meth:`chosen_values` has told a checkpoint.

        Raises:
            ValueError: a value is none that could be chosen.
        """
        if self.item_scores is not None and self.item_scores.automatic:
            weight = values.get("item_score_weight")
            if not isinstance(weight, float) or not 0 <= weight < math.inf:
                raise ValueError(f"item_score_weight is [{weight}]")
            self.item_scores.weight = weight

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._cached, self.frozen = None, False
        return super().train(mode)

    def _final(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The representations, and with item scores σ_u(e · e) of all users [n_users]."""
        kept = not (self.training or torch.is_grad_enabled())
        if kept and self._cached is not None:
            return self._cached
        users, items = self.representations()
        final = users, items, None if self.item_scores is None else spread(users, items)
        if kept:
            self._cached = final
        return final

    def predict(self, interaction: Interaction) -> torch.Tensor:
        """Scores of user-item pairs: [batch]."""
        users, items, deviation = self._final()
        user, item = interaction[self.USER_ID], interaction[self.ITEM_ID]
        queries = users[user]
        scores = (queries * items[item]).sum(dim=1)
        if self.item_scores is None or deviation is None:
            return scores
        return scores + deviation[user] * self.item_scores.of_pairs(user, item)

    def full_sort_predict(self, interaction: Interaction) -> torch.Tensor:
        """Scores of all items for each user: [batch · n_items], as RecBole expects it."""
        users, items, deviation = self._final()
        user = interaction[self.USER_ID]
        scores = matmul_nt(users[user], items)
        if self.item_scores is not None and deviation is not None:
            own, factor = self.item_scores.of_users(user)
            scores.addcmul_(own, (deviation[user] * factor)[:, None])
        return scores.view(-1)


def _without_gradient_if_frozen(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapped(self: MultimodalRecommender) -> Any:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return method(self)

    return wrapped


def _drop_cached(model: MultimodalRecommender, _incompatible_keys: object) -> None:
    """Called by torch when parameters have been loaded."""
    model._cached = None


class EmbeddingKeys(Keys):
    """The key of models that represent users and items by embeddings."""

    embedding_size: int = setting("d, the size of all representations", ge=1)


class LightGCNKeys(EmbeddingKeys):
    """The keys of models that have LightGCN beside item graphs."""

    n_ui_layers: int = setting("L_ui, LightGCN layers on the user-item graph", ge=0)


E = TypeVar("E", bound=EmbeddingKeys)


DIVIDED_IDS = ("user_embedding.weight", "item_embedding.weight")
"""The tables that a :class:`LightGCNRecommender` can divide."""


class LightGCNRecommender(MultimodalRecommender[E]):
    """Base of the models that have LightGCN on the user-item graph (arXiv 2002.02126).

    Attributes:
        user_embedding, item_embedding: tables of ``embedding_size`` d.
        graph: the normalised user-item graph, users first.
    """

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        self.user_embedding = xavier_embedding(self.n_users, self.keys.embedding_size)
        self.item_embedding = xavier_embedding(self.n_items, self.keys.embedding_size)
        self.graph = SparseGraph(bipartite_graph(self.interactions))

    def ego(self) -> torch.Tensor:
        """The embeddings of users and items, stacked: [n_users + n_items, d]."""
        return torch.cat([self.user_embedding.weight, self.item_embedding.weight])

    def lightgcn(
        self, n_layers: int, graph: SparseGraph | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean over layers 0 to ``n_layers`` on a graph, by default the whole.

        Returns:
            users [n_users, d], items [n_items, d].
        """
        final = mean_propagation(self.graph if graph is None else graph, self.ego(), n_layers)
        return self.users_and_items(final)


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
