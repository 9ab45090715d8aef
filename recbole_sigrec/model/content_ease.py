"""ContentEASE: EASE with a content kernel, in closed form.

EASE (Steck, WWW 2019, arXiv 1905.03375) is the item-item matrix B with a zero diagonal that
minimises ‖R − RB‖² + λ‖B‖². As in Collective EASE (Jeunen, Van Balen, Goethals, RecSys 2020), side
information joins R as further rows: each dimension of the items' content acts as a user who took
the items to its degree. With Z the modalities side by side, each of unit norm and weighted
(:func:`content_vectors`), and w the weight of the content,

    ‖R − RB‖² + w‖Zᵀ − ZᵀB‖² + λ‖B‖²,    G = RᵀR + w ZZᵀ,
    P = (G + λI)^{-1},    B_ij = −P_ij / P_jj,    B_jj = 0,    score_ui = Σ_j R_uj B_ji,

where (ZZᵀ)_ij = Σ_m α_m cos(x_i^m, x_j^m) is the content kernel: positive semi-definite, so that
G + λI can always be factorised, which a kernel cut to k neighbours does not promise. A cold item
has scores, through its content. w = 0 is EASE.

Ours: cosines as the kernel, several modalities, and centred features (``center``); what an item
lacks adds nothing to its row of the kernel. The other form in use, EASE's scores plus a multiple of
content-kNN's, was about as good on Baby's validation set (R@20 .093 against .095 with text alone,
the best of about ten settings each); this one is a single model with a single optimum.

Cost: n³ multiply-adds for n items (n = 7,000: 5 to 10 s on one core; 17,000: about 15 times that),
and 4n² bytes, which the inverse takes over from G; above ``max_items`` the model is refused.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import lapack

from recbole_sigrec.config import Keys, setting
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.model.training_free import TrainingFree, content_vectors

_BLOCK = 1024  # rows at a time


class ContentEASEKeys(Keys):
    """The keys of ContentEASE; their defaults are in ``properties/model/ContentEASE.yaml``."""

    reg_weight: float = setting("λ, the ridge", gt=0)
    content_weight: float = setting("w, the weight of the content (0: plain EASE)", ge=0)
    modality_weights: dict[str, float] | None = setting(
        "α: {modality: its share}; none given: all are equal"
    )
    center: bool = setting("take the mean from each modality's features")
    max_items: int = setting("more items are refused: n items need 4n² bytes", ge=1)


class ContentEASE(TrainingFree):
    """The model; ``similarity`` is B, a dense float32 array."""

    Keys = ContentEASEKeys

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        keys, n = self.keys, self.n_items
        if n > keys.max_items:
            raise ConfigError(
                f"config key [max_items] = [{keys.max_items}]: ContentEASE inverts a matrix of all "
                f"items, and {config['dataset']} has {n - 1}, which need {4e-9 * n * n:.1f} GB and "
                f"{1e-9 * n**3:.0f} thousand million multiply-adds. Raise the key if that is "
                f"there, or use ContentKNN"
            )
        weights = self.weights_of_modalities(keys.modality_weights)
        z = content_vectors(self.features, self.mask, weights, keys.center).numpy()
        gram = (np.float32(keys.content_weight) * z) @ z.T
        by_item = self.interactions.T.tocsr()
        for start in range(0, n, _BLOCK):
            rows = slice(start, start + _BLOCK)
            gram[rows] += (by_item[rows] @ self.interactions).toarray()
        gram[np.diag_indices(n)] += keys.reg_weight
        self.similarity = ease_weights(gram)


def ease_weights(gram: np.ndarray) -> np.ndarray:
    """B of a Gram matrix G + λI, in its memory: B_ij = −P_ij / P_jj, P its inverse, B_jj = 0.

    Shapes: gram float32 [n, n], positive definite and C-ordered → [n, n], C-ordered.

    Raises:
        ConfigError: it is not positive definite in float32.
    """
    inverse, failed = lapack.spotrf(gram.T, lower=1, clean=0, overwrite_a=1)  # Cholesky factor
    if not failed:
        inverse, failed = lapack.spotri(inverse, lower=1, overwrite_c=1)
    if failed:
        raise ConfigError(
            "config key [reg_weight]: the Gram matrix cannot be inverted in float32; raise it"
        )
    weights = inverse.T  # C-ordered; P stands on and above the diagonal
    diagonal = weights.diagonal().copy()
    for start in range(0, len(weights), _BLOCK):
        stop = start + _BLOCK
        corner = weights[start:stop, start:stop]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
        weights[stop:, start:stop] = weights[start:stop, stop:].T
    weights /= -diagonal
    np.fill_diagonal(weights, 0.0)
    return weights
