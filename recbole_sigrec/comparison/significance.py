"""Whether the first arm differs from the others: paired over users, corrected for many tests."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """The first arm against another."""

    label: str  # of the other
    metric: str
    difference: float  # mean over the users of the first's value less the other's
    p: float  # of the paired test, two-sided
    p_adjusted: float  # after Holm's correction


def against_first(values: dict[str, dict[str, np.ndarray]]) -> list[PairedTest]:
    """Test the first arm against every other in every metric.

    The test is Student's t over the users' differences: it tests the difference of means, which the
    table shows. Wilcoxon's signed-rank test tests another hypothesis (differences symmetric about
    zero) and drops the users for whom the arms are equal, which are most. Smucker, Allan and
    Carterette (CIKM 2007) find it misleading for retrieval; Urbano, Lima and Hanjalic (SIGIR 2019)
    find t the best calibrated. Holm's method (1979) corrects the p-values of all tests together. It
    bounds the probability of one false claim or more. A claim holds for other users of these
    trained models; the standard deviations show how models vary with the seed.

    Args:
        values: label → metric → float64 [n_users], each user's mean over the seeds; the users are
            the same and in the same order everywhere.

    Returns:
        Arm by arm, metric by metric; p is 1 where no user differs.
    """
    (_, first), *others = values.items()
    cases = [(label, metric) for label, _ in others for metric in first]
    if not cases:
        return []
    pairs = [(first[metric], values[label][metric]) for label, metric in cases]
    p = [_paired(*pair) for pair in pairs]
    adjusted = np.asarray(multipletests(p, method="holm")[1])
    differences = [float(np.mean(one - other)) for one, other in pairs]
    found = zip(cases, differences, p, adjusted.tolist(), strict=True)
    return [PairedTest(*case, *figures) for case, *figures in found]


def _paired(one: np.ndarray, other: np.ndarray) -> float:
    if len(one) < 2 or np.array_equal(one, other):
        return 1.0
    return float(ttest_rel(one, other).pvalue)
