"""What ``auto`` is for the keys whose values the data decides.

``collab_max_history`` is ten times the median history. The item graph of
:mod:`recbole_sigrec.model.item_scores` ranks by itself, in closed form, so that its keys can be
chosen before any training, by how well all of its edges rank the validation part. One after the
other, each with what was found before:

1. w, the weight of the content, which may be none;
2. the weights of the modalities: all equal, one at 0.8, or one left out;
3. λ.

With more than ``item_score_max_items`` items, whose inverse is too large, the three have fixed
values. The weight γ of these scores beside the learned ones is chosen at each validation. Test data
is never looked at. Ours, not the paper's.

Cost: an inverse of all n items for each λ, see :mod:`recbole_sigrec.graph.ridge`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_sigrec.config import AUTO, Config, Keys
from recbole_sigrec.data.dataset import MultimodalDataset, interactions_of
from recbole_sigrec.data.parts import Loaders
from recbole_sigrec.display.progress import progress
from recbole_sigrec.errors import ConfigError
from recbole_sigrec.graph import content_vectors
from recbole_sigrec.graph.collaborative import longest_history
from recbole_sigrec.graph.ridge import RidgeFamily
from recbole_sigrec.model.item_scores import FIXED_VALUES, validation_pairs
from recbole_sigrec.model.modality_weights import weights_of_modalities
from recbole_sigrec.parallel import distributed

CONTENT = (0.0, 2.5, 10.0, 40.0, 160.0)
"""The w among which ``auto`` chooses."""

RIDGES = (50.0, 100.0, 200.0, 400.0)
"""The λ among which ``auto`` chooses."""

AUTOMATIC = ("collab_max_history", *FIXED_VALUES)
"""The keys that may be ``auto``."""


def choose_values(config: Config, loaders: Loaders) -> None:
    """Put values into a config in place of ``auto``, and say in the log which and why.

    γ stays ``auto`` where each validation can choose it. Of several processes all take the values
    of the first.

    Args:
        config: changed in place; nothing changes for a model without such keys.
        loaders: those of training and validation are used.

    Raises:
        ConfigError: the closed form cannot be solved.
    """
    kind = getattr(config.model_class, "Keys", None)
    keys = kind.model_fields if isinstance(kind, type) and issubclass(kind, Keys) else ()
    train: Any = loaders[0].dataset
    valid: Any = loaders[1] and loaders[1].dataset
    automatic = [key for key in AUTOMATIC if key in keys and config[key] == AUTO]
    if "collab_max_history" in automatic:
        longest = longest_history(interactions_of(train))
        _set(config, {"collab_max_history": longest}, "ten times the median history")
    chosen = {key: FIXED_VALUES[key] for key in FIXED_VALUES if key in automatic}
    if not chosen or not train.modality_features:
        return
    n_items, max_items = train.item_num - 1, config["item_score_max_items"]
    weight = config["item_score_weight"]
    if valid is None or config["eval_args"]["mode"]["valid"] == "labeled":
        why = "there is no validation part that ranks, to choose by"
    elif weight == 0 and "modality_weights" not in chosen:
        why = "not used"
    else:
        chosen.pop("item_score_weight", None)
        if weight == 0 and "item_score_reg" in chosen:
            _set(config, {"item_score_reg": chosen.pop("item_score_reg")}, "not used")
        if not chosen:
            return
        if n_items > max_items:
            why = f"fixed: {n_items} items are more than item_score_max_items, {max_items}"
        else:
            given = {key: config[key] for key in _ORDER if key in keys and key not in chosen}
            chosen, why = _search(ClosedForm(config, train, valid), given, chosen)
    _set(config, distributed.gather(chosen)[0], why)


def _set(config: Config, chosen: dict[str, Any], why: str) -> None:
    for key, value in chosen.items():
        config[key] = value
    values = ", ".join(f"{key} = {value}" for key, value in chosen.items())
    logging.getLogger().info(f"auto: {values} ({why})")


def _search(
    closed: ClosedForm, given: dict[str, Any], start: dict[str, Any]
) -> tuple[dict[str, Any], str]:
    """Choose one key after the other.

    Args:
        given: key → value of those that stay.
        start: key → first value of those that are chosen.

    Returns:
        (key → value of those, how that went in words).
    """
    started = time.perf_counter()
    values = {key: FIXED_VALUES[key] for key in _ORDER} | given | start
    tried = {
        key: [other for other in _candidates(key, closed.modalities) if other != values[key]]
        for key in _ORDER
        if key in start
    }
    with progress("item scores", unit="settings", total=1 + sum(map(len, tried.values()))) as bar:
        best = closed.value(values)
        bar.update()
        for key, others in tried.items():
            found = []
            for other in others:
                found.append(closed.value({**values, key: other}))
                bar.update()
            if found and max(found) > best:
                best, values[key] = max(found), others[found.index(max(found))]
    told = f"{closed.metric} of the item graph alone is {best:.4f} on the validation part"
    seconds = time.perf_counter() - started
    return {key: values[key] for key in start}, f"chosen in {seconds:.0f} s: {told}"


_ORDER = ("item_score_content", "modality_weights", "item_score_reg")
"""The keys of the closed form, in the order in which they are chosen."""


def _candidates(key: str, modalities: list[str]) -> Iterator[Any]:
    if key == "item_score_content":
        yield from CONTENT
    elif key == "item_score_reg":
        yield from RIDGES
    elif len(modalities) > 1:
        others = len(modalities) - 1
        for one in modalities:
            yield {name: 0.8 if name == one else 0.2 / others for name in modalities}
            yield {name: float(name != one) for name in modalities}


class ClosedForm:
    """How well the item graph ranks a validation part, for values of its keys.

    Attributes:
        modalities: their names.
        metric: what is computed.

    Args:
        train, valid: the two parts of one data set.
    """

    def __init__(self, config: Config, train: MultimodalDataset, valid: MultimodalDataset):
        features, mask = train.modality_features, train.modality_mask
        self.modalities = list(features)
        self._interactions: sp.csr_matrix = interactions_of(train)
        equal = dict.fromkeys(features, 1.0)
        self._content = content_vectors(features, mask, equal, center=True).numpy()
        self._columns = [x.shape[1] for x in features.values()]
        self._held_out = validation_pairs(config, self._interactions, valid)
        self.metric = self._held_out.metric
        self._family: tuple[float, RidgeFamily] | None = None

    def value(self, values: dict[str, Any]) -> float:
        """The mean of the metric over users, for values of λ, w and the modalities' weights.

        Raises:
            ConfigError: the closed form cannot be solved.
        """
        w, weights, reg = (values[key] for key in _ORDER)
        shares = [*weights_of_modalities(self.modalities, weights).values()]
        columns = np.repeat(w * np.array(shares), self._columns).astype(np.float32)
        try:
            scores_of = self._family_of(reg).scorer(columns)
        except ValueError as error:
            told = f"config keys [item_score_reg] = [{reg}] and [item_score_content] = [{w}]"
            raise ConfigError(f"{told}: {error}") from None
        total = 0.0
        for block in self._held_out.blocks():
            scores = torch.from_numpy(scores_of(self._interactions[block.users]))
            total += block.value(block.of_pairs(block.mask(scores)))
        return total / max(1, len(self._held_out.users))

    def _family_of(self, reg: float) -> RidgeFamily:
        if self._family is None or self._family[0] != reg:
            self._family = None  # its memory is free before the next is made
            self._family = reg, RidgeFamily(self._interactions, self._content, reg)
        return self._family[1]
