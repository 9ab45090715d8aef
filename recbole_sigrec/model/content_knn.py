"""ContentKNN: item-based nearest neighbours by content alone, without training.

Item-based k-NN (Sarwar et al., WWW 2001; RecBole's ItemKNN) with the cosine of the items' content
in place of that of their users:

    score_ui = Σ_j S_ij over the items j that u has and that are among the k most similar to i,
    S_ij = z_i · z_j / (‖z_i‖ ‖z_j‖),

where z are the modalities side by side, each of unit norm and weighted (:func:`content_vectors`).
Where i and j have all modalities, S_ij is Σ_m α_m cos(x_i^m, x_j^m); what one of them lacks adds
nothing, and an item with no modality has no neighbours. Similarities of zero or less are dropped;
an item is not its own neighbour. Ours: the modalities are centred (``center``).

Cost: n²·d/2 multiply-adds for the neighbours (exact, in blocks; kept on disk), then k per item and
interaction.
"""

from __future__ import annotations

import torch

from recbole_sigrec.config import Config, Keys, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import content_vectors, semantic_graph
from recbole_sigrec.model.modality_weights import weights_of_modalities
from recbole_sigrec.model.training_free import TrainingFree


class ContentKNNKeys(Keys):
    """The keys of ContentKNN; their defaults are in ``properties/model/ContentKNN.yaml``."""

    knn_k: int = setting("k, neighbours of an item", ge=1)
    modality_weights: dict[str, float] | None = setting(
        "α: {modality: its share}; none given: all are equal"
    )
    center: bool = setting("take the mean from each modality's features")


class ContentKNN(TrainingFree[ContentKNNKeys]):
    """The model; ``similarity`` is Sᵀ in CSR, of which each column has at most k entries."""

    Keys = ContentKNNKeys

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        weights = weights_of_modalities(self.modalities, self.keys.modality_weights)
        z = content_vectors(self.features, self.mask, weights, self.keys.center)
        any_modality = torch.stack(list(self.mask.values())).any(dim=0)
        graph = semantic_graph(
            config, z, any_modality, include_self=False, weight="cosine", symmetric=False
        )
        self.similarity = graph.T.tocsr()
