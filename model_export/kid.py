"""Kernel Inception distance: how far one set of pictures is from another, taken in some network's features. Pure.

Sources: Binkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs", ICLR 2018, for the kernel; Gretton et al., "A
Kernel Two-Sample Test", JMLR 13 (2012), for the estimate (equation 4); Efron and Stein, "The Jackknife Estimate of
Variance", Annals of Statistics 9 (1981), for its error.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Distance:
    """An estimated squared distance: 0 where both sets come from one distribution, below it by chance.

    Attributes:
        value: the unbiased estimate.
        error: its standard error, None with fewer than three pairs.
    """

    value: float
    error: float | None


def kid(features: Features, reference: Features) -> Distance:
    """Estimate the squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, without bias.

    All pairs are used, no random subsets: the sets are small, and one run gives one answer. Entry i of both shows one
    scene, so the two sets are not independent and k(x_i, y_i) is left out, as in Gretton's estimate for paired samples:
    with it, as in the usual form, equal scenes would pull the distance below zero. The standard error is the
    jackknife's, which leaves out one scene at a time and on average errs to the large side.

    Args:
        features, reference: (N, D) each, entry i of both made of the same scene; N at least 2.

    Raises:
        ValueError: the shapes differ, or N is below 2.
    """
    if features.ndim != 2 or features.shape != reference.shape or len(features) < 2:
        raise ValueError(f"features of {features.shape} and {reference.shape} are no two equal sets of at least two")
    x, y = features.astype(np.float64), reference.astype(np.float64)
    n = len(x)
    cross = _kernel(x, y)
    terms = _kernel(x, x) + _kernel(y, y) - cross - cross.T
    np.fill_diagonal(terms, 0)
    total = terms.sum()
    value = float(total / (n * (n - 1)))
    if n < 3:
        return Distance(value, None)
    without = (total - 2 * terms.sum(axis=0)) / ((n - 1) * (n - 2))
    return Distance(value, float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2))))


def _kernel(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    cubes: npt.NDArray[np.float64] = (x @ y.T / x.shape[1] + 1) ** 3
    return cubes
