"""Groups of about equal size by a count: of test pairs by popularity, of users by activity."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Group:
    """Those whose count lies between two bounds, both included."""

    low: int  # the smallest count in the group
    high: int  # the largest
    mask: np.ndarray  # bool [n], who belongs to it

    @property
    def label(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}–{self.high}"

    @property
    def size(self) -> int:
        return int(self.mask.sum())


def by_count(counts: np.ndarray, n_groups: int = 4) -> list[Group]:
    """Divide by count into a group of zeros and up to ``n_groups`` of about equal size.

    The bounds are quantiles of the counts; equal counts stay together, so that groups may be fewer
    and of unequal size. Each belongs to exactly one group, and no group is empty.

    Args:
        counts: int [n], none negative.

    Returns:
        In ascending order; the zeros, if there are any, first.
    """
    groups = [Group(0, 0, counts == 0)] if (counts == 0).any() else []
    above = counts[counts > 0]
    if len(above) == 0:
        return groups
    shares = np.arange(1, n_groups + 1) / n_groups
    bounds = np.unique(np.quantile(above, shares, method="inverted_cdf"))
    for low, high in zip([0, *bounds], bounds):
        mask = (counts > low) & (counts <= high)
        groups.append(Group(int(counts[mask].min()), int(high), mask))
    return groups
