"""Whether the first arm differs from the others: paired over users, corrected for many tests."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """The first arm against another.

    Attributes:
        label, metric: the other arm, and what is compared.
        difference: mean over the users of the first's value less the other's.
        p: of the paired test, two-sided.
        p_adjusted: after Holm's correction.
    """

    label: str
    metric: str
    difference: float
    p: float
    p_adjusted: float


def against_first(values: dict[str, dict[str, np.ndarray]]) -> list[PairedTest]:
    """Test the first arm against every other in every metric.

    The test is Student's t over the users' differences: it tests the difference of means, which is
    what the table shows, and needs no more than that the mean of some thousand differences is about
    normal. Wilcoxon's signed-rank test tests another hypothesis (differences symmetric about zero)
    and drops users in whom the arms do not differ, which most are (Smucker, Allan and Carterette,
    CIKM 2007, find it misleading for retrieval and t in agreement with the randomisation test;
    Urbano, Lima and Hanjalic, SIGIR 2019, find t the best calibrated). The p-values of all tests
    made here are corrected together by Holm's method (1979), which bounds the probability of even
    one false claim. What is tested holds for other users of these trained models; how models vary
    with the seed is what the standard deviations show.

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
    adjusted = multipletests(p, method="holm")[1]
    return [
        PairedTest(*case, float(np.mean(one - other)), p_value, float(p_adjusted))
        for case, (one, other), p_value, p_adjusted in zip(cases, pairs, p, adjusted, strict=True)
    ]


def _paired(one: np.ndarray, other: np.ndarray) -> float:
    if len(one) < 2 or np.array_equal(one, other):
        return 1.0
    return float(ttest_rel(one, other).pvalue)
