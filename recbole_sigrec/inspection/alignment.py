"""Whether features belong to their items: do users take items of similar content together?"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp

STRATUM = 50  # items of similar degree, among which the features of one may go to another
ROUNDS = 30  # permutations that the observed share is compared with
BLOCK = 2**15  # pairs looked at in one go
CLEAR_LIFT = 1.3
SIGNIFICANT = 4.0  # standard deviations; by chance once in 30,000 shuffled files


@dataclasses.dataclass(frozen=True)
class Alignment:
    """How much more often content neighbours co-occur than items of the same degrees do.

    Attributes:
        pairs: (item, content neighbour) pairs, both with a training interaction.
        share: the part of them that some user has both of, in training.
        expected: the mean of that share over random permutations of the features.
        deviation: its standard deviation over them.
    """

    pairs: int
    share: float
    expected: float
    deviation: float

    @property
    def lift(self) -> float | None:
        """share / expected; None where nothing co-occurs by chance."""
        return self.share / self.expected if self.expected > 0 else None

    @property
    def z(self) -> float | None:
        """The share's excess in standard deviations; None where the permutations all agree."""
        return (self.share - self.expected) / self.deviation if self.deviation > 0 else None

    @property
    def verdict(self) -> str:
        """``aligned``, ``weak`` (significant, but small), ``none``, or ``unclear`` (too few)."""
        if self.lift is None or self.z is None:
            return "unclear"
        if self.z >= SIGNIFICANT:
            return "aligned" if self.lift >= CLEAR_LIFT else "weak"
        return "none" if self.lift < CLEAR_LIFT else "unclear"


def check_alignment(
    neighbours: sp.csr_matrix, interactions: sp.csr_matrix, rounds: int = ROUNDS, seed: int = 0
) -> Alignment:
    """The share of content neighbours that co-occur in histories, against a permuted graph.

    The null hypothesis is that of a shuffled feature file: the content graph is kept as it is, and
    its rows go to other items, but only to items of similar degree (the ``STRATUM`` next to each
    other in the order of degree, ties in random order), so that popularity explains nothing. This
    is the quadratic assignment procedure (Hubert and Schultz, 1976; Krackhardt, 1988) with a
    restricted permutation: dependence among the pairs, such as from an item that is the neighbour
    of many, is in the null as well.

    Args:
        neighbours: [n_items, n_items], an entry for each (item, content neighbour) pair.
        interactions: binary R [n_users, n_items] of the training interactions alone.
        rounds: permutations.
        seed: of the permutations.

    Returns:
        The :class:`Alignment`; pairs of which one item has no training interaction are left out.

    Cost: (rounds + 1) · pairs · the mean degree of their items; no item-item matrix is made but of
    ``BLOCK`` pairs.
    """
    users = interactions.T.tocsr()
    degree = np.diff(users.indptr)
    left, right = neighbours.nonzero()
    trained = (degree[left] > 0) & (degree[right] > 0)
    left, right = left[trained], right[trained]
    if len(left) == 0:
        return Alignment(0, 0.0, 0.0, 0.0)
    items = np.union1d(left, right)
    rng = np.random.default_rng(seed)
    shares = []
    for _ in range(rounds):
        moved = _within_strata(items, degree, rng)
        shares.append(share_together(users, moved[left], moved[right]))
    share = share_together(users, left, right)
    return Alignment(len(left), share, float(np.mean(shares)), float(np.std(shares, ddof=1)))


def share_together(users: sp.csr_matrix, left: np.ndarray, right: np.ndarray) -> float:
    """The share of item pairs that have a user in common.

    Shapes: users [n_items, n_users], binary; left, right [n_pairs], n_pairs ≥ 1.
    """
    together = 0
    for start in range(0, len(left), BLOCK):
        block = slice(start, start + BLOCK)
        common = users[left[block]].multiply(users[right[block]]).tocsr()
        together += np.count_nonzero(np.diff(common.indptr))
    return together / len(left)


def _within_strata(items, degree, rng) -> np.ndarray:
    """A permutation: item → an item of similar degree; int64 [n_items], items themselves alone."""
    order = items[np.lexsort((rng.random(len(items)), degree[items]))]
    stratum = np.arange(len(items)) * max(1, len(items) // STRATUM) // len(items)
    moved = np.arange(len(degree))
    moved[order] = order[np.lexsort((rng.random(len(items)), stratum))]
    return moved
