import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data.batches import gather, n_windows, permute, target_positions, window_ids

SEEDS = st.integers(0, 2**64 - 1)


def awkward_sizes():
    """Sizes at and just beside squares and powers of two, where the walk is longest."""
    near = st.sampled_from([2**k for k in range(1, 13)] + [k * k for k in range(1, 40)])
    return st.builds(lambda n, off: max(1, n + off), near, st.sampled_from([-1, 0, 1]))


@st.composite
def specs(draw):
    n = draw(st.integers(1, 400))
    return {
        "batch_size": draw(st.integers(1, 13)),
        "n_windows": n,
        "n_windows_unique": draw(st.integers(1, n)),
        "seed": draw(SEEDS),
    }


def stream(spec, n_positions):
    """The first n_positions windows of a run, in order."""
    n_steps = -(-n_positions // spec["batch_size"])
    return window_ids(np.arange(n_steps), **spec).ravel()[:n_positions]


@pytest.mark.parametrize(
    ("n_tokens", "seq_len", "expected"),
    [(0, 4, 0), (4, 4, 0), (5, 4, 1), (8, 4, 1), (9, 4, 2), (602_018, 64, 9406)],
)
def test_windows_overlap_by_the_one_token_that_is_input_and_target(n_tokens, seq_len, expected):
    assert n_windows(n_tokens, seq_len) == expected


@given(awkward_sizes(), SEEDS, st.integers(0, 2**40))
def test_permutation_is_a_bijection_of_any_size(n, seed, epoch):
    image = permute(np.arange(n), n, seed=seed, epoch=epoch)
    assert np.array_equal(np.sort(image), np.arange(n))


def test_permutation_is_a_bijection_of_a_large_set():
    n = 2**20 + 1
    image = permute(np.arange(n), n, seed=3, epoch=1)
    assert np.array_equal(np.bincount(image), np.ones(n))


def test_seeds_and_epochs_give_unrelated_orders():
    index = np.arange(1000)
    orders = [permute(index, 1000, seed=s, epoch=e) for s in (0, 1, 2) for e in (0, 1, 2)]
    for i, order in enumerate(orders):
        for other in (index, *orders[:i]):
            assert abs(np.corrcoef(order, other)[0, 1]) < 0.15
            assert np.mean(order == other) < 0.01


def test_neighbours_are_scattered():
    image = permute(np.arange(10_000), 10_000, seed=0, epoch=0)
    assert abs(np.corrcoef(image[1:], image[:-1])[0, 1]) < 0.05
    assert abs(np.corrcoef(image, np.arange(10_000))[0, 1]) < 0.05


@pytest.mark.parametrize("n", [2, 3, 7, 50])
def test_every_place_is_equally_likely(n):
    n_epochs = 20_000
    image = permute(np.zeros(n_epochs, np.int64), n, seed=5, epoch=np.arange(n_epochs))
    counts = np.bincount(image, minlength=n)
    chi_square = np.sum((counts - n_epochs / n) ** 2 / (n_epochs / n))
    assert chi_square < (n - 1) + 5 * np.sqrt(2 * n)


@given(specs())
def test_first_epoch_visits_each_unique_window_once(spec):
    first = stream(spec, spec["n_windows_unique"])
    assert len(np.unique(first)) == spec["n_windows_unique"]
    assert first.min() >= 0 and first.max() < spec["n_windows"]


@given(specs(), st.integers(1, 4))
def test_later_epochs_visit_the_same_windows_once(spec, epoch):
    n_unique = spec["n_windows_unique"]
    visited = stream(spec, (epoch + 1) * n_unique)
    assert np.array_equal(np.sort(visited[:n_unique]), np.sort(visited[epoch * n_unique :]))


def test_epochs_differ_in_order():
    spec = {"batch_size": 8, "n_windows": 1000, "n_windows_unique": 100, "seed": 0}
    epochs = stream(spec, 500).reshape(5, 100)
    for i in range(1, 5):
        assert np.mean(epochs[i] == epochs[i - 1]) < 0.1


@given(specs())
def test_a_smaller_budget_is_a_prefix_of_a_larger_one(spec):
    n_unique = spec["n_windows_unique"]
    unlimited = spec | {"n_windows_unique": spec["n_windows"]}
    assert np.array_equal(stream(spec, n_unique), stream(unlimited, n_unique))


@given(specs(), st.lists(st.integers(0, 500), max_size=5))
def test_one_step_equals_its_row_among_several(spec, steps):
    rows = window_ids(np.array(steps, dtype=np.int64), **spec)
    assert rows.shape == (len(steps), spec["batch_size"]) and rows.dtype == np.int64
    for step, row in zip(steps, rows, strict=True):
        assert np.array_equal(window_ids(step, **spec), row)


def test_batch_size_only_cuts_the_same_stream():
    spec = {"n_windows": 97, "n_windows_unique": 60, "seed": 11}
    assert np.array_equal(
        stream(spec | {"batch_size": 3}, 200), stream(spec | {"batch_size": 8}, 200)
    )


def test_a_caller_cannot_change_later_answers():
    spec = {"batch_size": 4, "n_windows": 50, "n_windows_unique": 50, "seed": 0}
    window_ids(2, **spec)[:] = -1
    assert window_ids(2, **spec).min() >= 0


def test_batches_are_frozen():
    # These values are part of the meaning of stored run ids: if this fails, undo the change.
    spec = {"batch_size": 8, "n_windows": 180_999, "n_windows_unique": 1000, "seed": 7}
    assert window_ids(0, **spec).tolist() == [
        174689,
        101040,
        56584,
        15618,
        163560,
        124745,
        86532,
        112387,
    ]
    assert window_ids(125, **spec).tolist() == [
        51007,
        16802,
        69573,
        80871,
        91147,
        88848,
        7379,
        154450,
    ]


@given(st.integers(2, 300), st.integers(1, 20))
def test_every_token_but_the_first_is_a_target_once(n_tokens, seq_len):
    ids = np.arange(n_windows(n_tokens, seq_len))
    targets = target_positions(ids, seq_len).ravel()
    assert np.array_equal(targets, np.arange(1, len(ids) * seq_len + 1))
    assert n_tokens - 1 - len(targets) < seq_len


def test_gather_shifts_targets_by_one():
    tokens = np.arange(100, dtype=np.uint8)
    windows = gather(tokens, np.array([[0, 3], [2, 1]]), seq_len=7)
    assert windows.shape == (2, 2, 8) and windows.dtype == np.int32
    assert np.array_equal(windows[0, 1], np.arange(21, 29))
    assert np.array_equal(windows[..., 1:], target_positions(np.array([[0, 3], [2, 1]]), 7))


def test_gather_past_the_end_is_refused():
    with pytest.raises(IndexError):
        gather(np.zeros(16, np.uint8), np.array([3]), seq_len=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"n_windows": 0}, "n_windows=0"),
        ({"n_windows_unique": 11}, "n_windows_unique=11"),
        ({"n_windows_unique": 0}, "n_windows_unique=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_specs_are_refused_by_name(change, message):
    spec = {"batch_size": 2, "n_windows": 10, "n_windows_unique": 10, "seed": 0} | change
    with pytest.raises(ValueError, match=message):
        window_ids(0, **spec)


@pytest.mark.parametrize("steps", [-3, np.array([2, -3])])
def test_negative_steps_are_refused(steps):
    with pytest.raises(ValueError, match="step -3 is negative"):
        window_ids(steps, batch_size=2, n_windows=10, n_windows_unique=10, seed=0)


def test_windows_of_no_length_are_refused():
    with pytest.raises(ValueError, match="seq_len=0"):
        n_windows(10, 0)
