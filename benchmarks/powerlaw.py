"""Synthetic interactions with long tails, and features that agree with them.

Distribution (our choice, for measuring cost; no claim about quality can be drawn from it):

-   An item belongs to one of ``n_clusters`` clusters, drawn uniformly, and has the popularity
    rank^−0.8 for a random rank. A user has the activity rank^−0.5 and favours one cluster.
-   Every user has a first interaction, as far as there are enough of them; the user of each other
    one is drawn by activity. With probability 0.7 its item is drawn, by popularity, from the
    cluster that the user favours, else from all items. A pair that exists already is drawn anew.
-   The features of an item are its cluster's centre, of independent standard normals, plus
    independent normals of the same deviation.
"""

from __future__ import annotations

import numpy as np

from recbole_sigrec.data.user_items import sorted_distinct

POPULARITY, ACTIVITY = 0.8, 0.5  # exponents of the two power laws
FAVOURED = 0.7  # share of the draws that come from the user's favourite cluster


def powerlaw(
    n_users: int,
    n_items: int,
    n_interactions: int,
    n_clusters: int = 100,
    d: int = 128,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interactions without repeated pairs, ordered by user and item, and item features.

    Returns:
        (users int64 [n_interactions], items int64 [n_interactions], features float32 [n_items, d]);
        ids begin at 0.

    Cost: a sort of all pairs per round of draws (few rounds unless the matrix is dense); memory
    about 50 bytes per interaction, and the features.

    Raises:
        ValueError: the pairs are too many to be drawn without repetition.
    """
    rng = np.random.default_rng(seed)
    cluster = np.sort(rng.integers(0, n_clusters, n_items))  # items of a cluster are neighbours
    weight = rng.permutation(n_items).astype(np.float64) + 1.0
    mass = np.concatenate([[0.0], np.cumsum(weight**-POPULARITY)])  # items as pieces of a line
    bounds = mass[np.searchsorted(cluster, np.arange(n_clusters + 1))]  # clusters on that line
    activity = np.cumsum((rng.permutation(n_users) + 1.0) ** -ACTIVITY)
    favourite = rng.integers(0, n_clusters, n_users)
    name = rng.permutation(n_items)  # so that ids do not tell clusters

    pairs = np.empty(0, dtype=np.int64)  # sorted user · n_items + item
    users = np.arange(min(n_users, n_interactions))
    for _ in range(100):
        more = rng.random(n_interactions - len(pairs) - len(users)) * activity[-1]
        users = np.concatenate([users, np.searchsorted(activity, more, side="right")])
        low, high = (bounds[favourite[users] + end] for end in (0, 1))
        free = (rng.random(len(users)) >= FAVOURED) | (low == high)  # or the cluster is empty
        low[free], high[free] = 0.0, mass[-1]
        place = np.searchsorted(mass, low + rng.random(len(users)) * (high - low), side="right") - 1
        items = name[np.minimum(place, n_items - 1)]
        pairs = sorted_distinct(np.concatenate([pairs, users * n_items + items]))
        users = users[:0]
        if len(pairs) == n_interactions:
            centres = rng.standard_normal((n_clusters, d), dtype=np.float32)
            features = rng.standard_normal((n_items, d), dtype=np.float32)
            features[name] += centres[cluster]
            return *np.divmod(pairs, n_items), features
    raise ValueError(
        f"{n_interactions} distinct pairs of {n_users} users and {n_items} items are too many to "
        f"be drawn by this distribution"
    )
