import numpy as np
import pytest

from analysis.positions import fit_position, position_loss


def row(edges, losses, errors=None):
    return {
        "position_edges": edges,
        "position_loss_nats": losses,
        "position_se_document": [0.01] * len(losses) if errors is None else errors,
    }


def test_a_planted_law_of_position_comes_back():
    """Constants of the size that Kaplan et al. 2020 print in fig. 20."""
    t = np.arange(1, 65)
    found = fit_position(position_loss(row([*t, 65], (2.4 + 5.1 * t**-0.61).tolist())))
    assert found.ok
    assert found.parameters == pytest.approx({"E": 2.4, "A": 5.1, "alpha": 0.61}, rel=1e-5)


def test_bins_count_at_their_geometric_middle():
    found = position_loss(row([1, 2, 4, 10], [3.0, 2.0, 1.0], [None, 0.1, 0.2]))
    assert found.first.tolist() == [1, 2, 4] and found.last.tolist() == [1, 3, 9]
    np.testing.assert_allclose(found.middle, [1, 6**0.5, 6])
    assert np.isnan(found.se_document[0]) and found.se_document[2] == 0.2


def test_binning_a_law_moves_its_exponent_little():
    """1024 positions in log-spaced bins, as evaluations keep them, against all of them."""
    t = np.arange(1, 1025)
    loss = 1.5 + 2.0 * t**-0.8
    edges = sorted({round(e) for e in np.geomspace(1, 1025, 129)})
    means = [loss[a - 1 : b - 1].mean() for a, b in zip(edges, edges[1:], strict=False)]
    found = fit_position(position_loss(row(edges, means)), n_bootstrap=0)
    assert found.parameters["alpha"] == pytest.approx(0.8, rel=2e-3)


def test_too_few_positions_give_a_status_and_no_numbers():
    found = fit_position(position_loss(row([1, 2, 3], [2.0, 1.9])))
    assert not found.ok and "too few points" in found.status
