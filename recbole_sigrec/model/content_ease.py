"""ContentEASE: EASE with a content kernel, in closed form.

B is the ridge regression of each item on all others, over the users who took them and over the
dimensions of their content (:mod:`recbole_sigrec.graph.ridge`); score_ui = Σ_j R_uj B_ji. With Z
the modalities side by side, each of unit norm and weighted (:func:`content_vectors`), its content
kernel is (ZZᵀ)_ij = Σ_m α_m cos(x_i^m, x_j^m): positive semi-definite, so that G + λI can always be
factorised, which a kernel cut to k neighbours does not promise. A cold item has scores, through its
content. w = 0 is EASE.

Ours: cosines as the kernel, several modalities, and centred features (``center``); what an item
lacks adds nothing to its row of the kernel. The other form in use, EASE's scores plus a multiple of
content-kNN's, was about as good on Baby's validation set (R@20 .093 against .095 with text alone,
the best of about ten settings each); this one is a single model with a single optimum.

Above ``max_items`` the model is refused: it holds a matrix of all items.
"""

from __future__ import annotations

from recbole_sigrec.config import Config, Keys, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import content_vectors, ridge_weights
from recbole_sigrec.graph.ridge import cost
from recbole_sigrec.model.modality_weights import weights_of_modalities
from recbole_sigrec.model.training_free import TrainingFree


class ContentEASEKeys(Keys):
    """The keys of ContentEASE; their defaults are in ``properties/model/ContentEASE.yaml``."""

    reg_weight: float = setting("λ, the ridge", gt=0)
    content_weight: float = setting("w, the weight of the content (0: plain EASE)", ge=0)
    modality_weights: dict[str, float] | None = setting(
        "α: {modality: its share}; none given: all are equal"
    )
    center: bool = setting("take the mean from each modality's features")
    max_items: int = setting("more items are refused: n items need 4n² bytes", ge=1)


class ContentEASE(TrainingFree[ContentEASEKeys]):
    """The model; ``similarity`` is B, a dense float32 array."""

    Keys = ContentEASEKeys

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, n = self.keys, self.n_items
        if n - 1 > keys.max_items:
            raise ConfigError(
                f"config key [max_items] = [{keys.max_items}]: ContentEASE inverts a matrix of all "
                f"items, and {config['dataset']} has {n - 1}, which need {cost(n)}. Raise the "
                f"key if that is there, or use ContentKNN"
            )
        weights = weights_of_modalities(self.modalities, keys.modality_weights)
        z = content_vectors(self.features, self.mask, weights, keys.center).numpy()
        try:
            self.similarity = ridge_weights(
                self.interactions, z, keys.content_weight, keys.reg_weight
            )
        except ValueError as error:
            raise ConfigError(f"config key [reg_weight] = [{keys.reg_weight}]: {error}") from None
