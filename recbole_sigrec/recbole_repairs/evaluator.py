"""RecBole's metrics of all recommendations, which count the padding item as one of the items."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.evaluator import Evaluator as RecBoleEvaluator
from recbole.evaluator import metrics


def _recommended(item_matrix: np.ndarray) -> np.ndarray:
    """The items that are recommended, int64 [1, n]; 0 is none."""
    return item_matrix[item_matrix > 0][None]


class ItemCoverage(metrics.ItemCoverage):
    """RecBole's; its number of items includes the padding item, so that it is never 1."""

    def get_coverage(self, item_matrix: np.ndarray, num_items: int) -> float:
        """The share of the items that are recommended to somebody."""
        return super().get_coverage(_recommended(item_matrix), num_items - 1)


class GiniIndex(metrics.GiniIndex):
    """RecBole's; its number of items includes the padding item, so that it is never 0."""

    def get_gini(self, item_matrix: np.ndarray, num_items: int) -> float:
        """How unequally often the items are recommended: 0 where equally."""
        return super().get_gini(_recommended(item_matrix), num_items - 1)


class ShannonEntropy(metrics.ShannonEntropy):
    """RecBole's, of what is recommended alone."""

    def get_entropy(self, item_matrix: np.ndarray) -> float:
        """The entropy over the items, divided by their number, as RecBole does."""
        return super().get_entropy(_recommended(item_matrix))


class AveragePopularity(metrics.AveragePopularity):
    """RecBole's, a mean over what is recommended alone."""

    def get_pop(self, item_matrix: np.ndarray, item_count: dict[int, int]) -> np.ndarray:
        """Training pairs of each recommended item, float64 [n_users, k]; NaN where none is."""
        return np.where(item_matrix > 0, super().get_pop(item_matrix, item_count), np.nan)

    def metric_info(self, values: np.ndarray) -> np.ndarray:
        """The mean over each user's first items, float64 [n_users, k]."""
        return _running_mean(values)


class TailPercentage(metrics.TailPercentage):
    """RecBole's, a mean over what is recommended alone."""

    def get_tail(self, item_matrix: np.ndarray, count_items: dict[int, int]) -> np.ndarray:
        """Whether an item is of the long tail, float64 [n_users, k]; NaN where none is."""
        return np.where(item_matrix > 0, super().get_tail(item_matrix, count_items), np.nan)

    def metric_info(self, values: np.ndarray) -> np.ndarray:
        """The mean over each user's first items, float64 [n_users, k]."""
        return _running_mean(values)


def _running_mean(values: np.ndarray) -> np.ndarray:
    there = ~np.isnan(values)
    return np.nancumsum(values, axis=1) / np.maximum(there.cumsum(axis=1), 1)


_KINDS = (ItemCoverage, GiniIndex, ShannonEntropy, AveragePopularity, TailPercentage)

OVER_ALL_ITEMS = {kind.__name__.lower(): kind for kind in _KINDS}
"""The metrics of this file by name, in small letters. Earlier versions had RecBole's instead."""


class Evaluator(RecBoleEvaluator):
    """RecBole's evaluator with the metrics of this file."""

    def __init__(self, config: Any):
        super().__init__(config)
        for name in OVER_ALL_ITEMS.keys() & self.metric_class.keys():
            self.metric_class[name] = OVER_ALL_ITEMS[name](config)
