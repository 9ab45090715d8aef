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

With more than ``max_items`` items, of which no matrix is held, only the ``largest_k`` positive
weights into each item count (:mod:`recbole_sigrec.graph.ridge_columns`).
"""

from __future__ import annotations

from recbole_sigrec.config import Config, Keys, setting
from recbole_sigrec.data.dataset import MultimodalDataset
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import content_vectors, ridge_graph, ridge_weights
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
    max_items: int = setting(
        "up to so many items all weights are kept, in 4n² bytes; with more, the largest", ge=1
    )
    largest_k: int = setting(
        "the largest positive weights into each item, kept with more than max_items items", ge=1
    )


class ContentEASE(TrainingFree[ContentEASEKeys]):
    """The model; ``similarity`` is B: a dense array or, where items are many, CSR."""

    Keys = ContentEASEKeys

    def __init__(self, config: Config, dataset: MultimodalDataset):
        super().__init__(config, dataset)
        keys, n = self.keys, self.n_items - 1
        alpha = weights_of_modalities(self.modalities, keys.modality_weights)
        z = content_vectors(self.features, self.mask, alpha, keys.center).numpy()
        weights = {"content_weight": keys.content_weight, "reg_weight": keys.reg_weight}
        try:
            if n <= keys.max_items:
                self.similarity = ridge_weights(self.interactions, z, **weights)
            else:
                self.similarity = ridge_graph(
                    config["graph_cache_dir"],
                    self.interactions,
                    z,
                    keys.largest_k,
                    keys.max_items,
                    **weights,
                )
        except ValueError as error:
            raise ConfigError(
                f"config keys [reg_weight] = [{keys.reg_weight}] and [content_weight] = "
                f"[{keys.content_weight}]: {error}"
            ) from None
