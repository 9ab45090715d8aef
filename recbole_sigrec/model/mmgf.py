"""MMGF: a graph filter over interactions and content, without training (after MM-GF).

MM-GF (arXiv 2503.04406) ranks by linear low-pass filters of item graphs, one of the interactions
and one of each modality, and trains nothing. Its paper could not be read: the idea is followed, the
steps below are ours.

1.  R̃ = D_u^{-a} R D_i^{a-1} of the training interactions, with D_u the number of items of a user
    and D_i the number of users of an item. The linear filter of their item graph is P = R̃ᵀR̃, each
    entry to the power s (Turbo-CF, arXiv 2404.14243, has a = ½ and this power).
2.  For each modality m, C^m has the k most similar items of each, by the cosine of the centred
    features; similarities of zero or less are dropped.
3.  score_u = R_u (P / ‖P‖ + b Σ_m α_m C^m / ‖C^m‖), ‖·‖ the mean sum of a column.

An item without a modality has no edge in its graph. A cold item has scores, through its content.
Chosen on the validation parts of TikTok and Baby: a = ½ ranks worse than .9 on both (R@20 without
content .064 and .094 on TikTok).

Cost: Σ_u d_u² multiply-adds for P, which is kept sparse, and the nearest neighbours.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from recbole_sigrec.config import Config, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.graph import content_vectors, semantic_graph
from recbole_sigrec.model.content_knn import ContentKNNKeys
from recbole_sigrec.model.modality_weights import weights_of_modalities
from recbole_sigrec.model.training_free import TrainingFree


class MMGFKeys(ContentKNNKeys):
    """The keys of MMGF; their defaults are in ``properties/model/MMGF.yaml``."""

    user_exponent: float = setting("a, how strongly long histories count less", ge=0, le=1)
    power: float = setting("s, the power of each entry of the interactions' filter", gt=0)
    content_weight: float = setting("b, weight of the content (0: interactions alone)", ge=0)


class MMGF(TrainingFree[MMGFKeys]):
    """The model; ``similarity`` is the matrix of step 3, in CSR."""

    Keys = MMGFKeys

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys = self.keys
        self.similarity = _scaled(self._interaction_filter())
        weights = weights_of_modalities(self.modalities, keys.modality_weights)
        for name in self.modalities if keys.content_weight > 0 else ():
            x, mask = self.features[name], self.mask[name]
            z = content_vectors({name: x}, {name: mask}, {name: 1.0}, keys.center)
            near = semantic_graph(
                config, z, mask, include_self=False, weight="cosine", symmetric=False
            )
            self.similarity += keys.content_weight * weights[name] * _scaled(near)

    def _interaction_filter(self) -> sp.csr_matrix:
        """Step 1: P to the power s."""
        r, a = self.interactions, self.keys.user_exponent
        of_user, of_item = (np.maximum(r.getnnz(axis=axis), 1.0) for axis in (1, 0))
        r = sp.csr_matrix(sp.diags(of_user**-a) @ r @ sp.diags(of_item ** (a - 1)))
        return sp.csr_matrix(r.transpose() @ r).power(self.keys.power)


def _scaled(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """A matrix whose columns have the sum 1 on average; one without entries as it is."""
    n, total = len(matrix.indptr) - 1, float(matrix.sum())  # it is square
    return sp.csr_matrix(matrix * (n / total if total else 1.0), dtype=np.float32)
