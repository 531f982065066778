import itertools

import numpy as np
import numpy.typing as npt
import pytest

from model_export.kid import kid

Array = npt.NDArray[np.float64]


def plain(x: Array, y: Array) -> float:
    """Binkowski's kernel summed over all pairs of unequal scenes, loop by loop."""

    def k(one: Array, other: Array) -> float:
        return float((sum(a * b for a, b in zip(one, other, strict=True)) / len(one) + 1) ** 3)

    total = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j:
                total += k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i])
    return total / (len(x) * (len(x) - 1))


def test_it_is_the_plain_double_loop() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 9, 4))
    found = kid(x, y)
    assert found.value == pytest.approx(plain(x, y), rel=1e-12)
    without = [plain(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(9)]
    assert found.error == pytest.approx(np.sqrt(8 * np.var(without)), rel=1e-9)


def test_features_in_single_precision_are_summed_in_double() -> None:
    x, y = np.random.default_rng(1).normal(5, 1, size=(2, 30, 64)).astype(np.float32)
    assert kid(x, y) == kid(x.astype(np.float64), y.astype(np.float64))


def test_two_halves_of_one_distribution_are_no_distance_apart() -> None:
    rng = np.random.default_rng(2)
    found = [kid(*rng.gamma(2.0, size=(2, 60, 20))) for _ in range(40)]
    values, errors = (np.array([getattr(one, name) for one in found]) for name in ("value", "error"))
    assert np.all(np.abs(values) < 4 * errors)
    assert abs(values.mean()) < 3 * values.std(ddof=1) / np.sqrt(len(values))  # no bias
    assert values.min() < 0 < values.max()


def test_scenes_that_both_sets_share_bias_nothing() -> None:
    # both sets are standard normal, and entries of one scene alike
    rng = np.random.default_rng(3)
    values, usual = [], []
    for x, noise in rng.normal(size=(300, 2, 12, 6)):
        y = 0.8 * x + 0.6 * noise
        values.append(kid(x, y).value)
        pairs = (x @ y.T / 6 + 1) ** 3
        between, same_scene = pairs.mean(), np.diag(pairs).mean()
        usual.append(values[-1] + 2 * (pairs.sum() - 12 * same_scene) / (12 * 11) - 2 * between)
    scatter = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * scatter
    assert np.mean(usual) < -4 * scatter


def test_it_grows_with_a_shift() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(2, 100, 16))
    found = [kid(x, y + shift) for shift in (0.0, 0.3, 0.6, 1.2)]
    assert all(one.value < other.value for one, other in itertools.pairwise(found))
    assert found[-1].error is not None
    assert found[-1].value > 5 * found[-1].error


def test_the_error_is_what_repetitions_scatter_by() -> None:
    rng = np.random.default_rng(5)
    found = [kid(x, y + 0.5) for x, y in rng.normal(size=(150, 2, 40, 8))]
    scatter = np.std([one.value for one in found])
    assert np.mean([one.error for one in found if one.error is not None]) == pytest.approx(scatter, rel=0.25)


def test_two_scenes_have_no_error() -> None:
    x, y = np.random.default_rng(6).normal(size=(2, 2, 3))
    assert kid(x, y).error is None
    assert kid(x, y).value == pytest.approx(plain(x, y))


@pytest.mark.parametrize(("x", "y"), [((1, 4), (1, 4)), ((3, 4), (2, 4)), ((3, 4), (3, 5)), ((4,), (4,))])
def test_other_shapes_are_refused(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no two equal sets"):
        kid(np.ones(x), np.ones(y))
