import json
from types import SimpleNamespace

import jax
import pytest

from train import row_choice
from train.config import OptimizerConfig
from train.row_choice import MAX_ROWS, choose_rows, measured_rows

TOO_LARGE = "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."


@pytest.mark.parametrize(
    ("rates", "n_max", "expected"),
    [
        ({1: 1, 2: 2, 4: 4, 8: 8, 16: 16}, 99, MAX_ROWS),
        ({1: 1, 2: 2, 4: 4}, 7, 4),
        ({1: 1, 2: 1.8, 4: 1.9}, 16, 2),
        ({1: 1, 2: 1.09}, 16, 1),
        ({1: 1, 2: 1.9, 4: 3, 8: 0}, 16, 4),
        ({1: 1, 2: 0.9}, 16, 1),
        ({}, 1, 1),
    ],
    ids=["rising", "few jobs", "flat", "little", "too large", "falling", "one job"],
)
def test_rows_double_for_as_long_as_it_pays(rates, n_max, expected):
    """A rate that is not in the table must not be asked for."""
    assert choose_rows(rates.__getitem__, n_max) == expected


@pytest.fixture
def measured(monkeypatch, corpus, tmp_path):
    """measured_rows on a device of made-up rates; and what was measured on it."""
    asked = []

    def measured(spec, rates, n_max=16, kind="chip"):
        def tokens_per_s(spec, device, n_rows, corpus):
            asked.append(n_rows)
            return rates[n_rows]

        monkeypatch.setattr(row_choice, "tokens_per_s", tokens_per_s)
        device = SimpleNamespace(device_kind=kind)
        return measured_rows(spec, device, n_max, corpus=corpus, cache=tmp_path / "c" / "rows.json")

    measured.asked = asked
    return measured


def test_a_shape_is_measured_once_on_a_kind_of_device(make_spec, measured, tmp_path):
    rates = {1: 1.0, 2: 1.9, 4: 3.6, 8: 3.7}
    assert measured(make_spec(), rates, n_max=2) == 2
    assert measured(make_spec(seed_init=4, optimizer=OptimizerConfig(lr=0.5)), rates) == 4
    assert sorted(measured.asked) == [1, 2, 4, 8]
    assert measured(make_spec(99), {}) == 4 and measured(make_spec(99), {}, n_max=3) == 2
    assert len(measured.asked) == 4
    assert measured(make_spec(batch_size=4), {1: 1.0, 2: 1.0}) == 1
    assert measured(make_spec(), {1: 1.0, 2: 1.0}, kind="other chip") == 1
    (tmp_path / "c" / "rows.json").write_text('{"torn')
    assert measured(make_spec(), {1: 1.0, 2: 1.0}) == 1
    assert json.loads((tmp_path / "c" / "rows.json").read_text())


def test_what_does_not_fit_has_no_rate(make_spec, corpus, monkeypatch):
    def compute(dispatches):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(row_choice, "compute", compute)
    message = TOO_LARGE
    assert row_choice.tokens_per_s(make_spec(), jax.devices()[0], 3, corpus) == 0.0
    message = "INTERNAL: the device is gone"
    with pytest.raises(jax.errors.JaxRuntimeError, match="gone"):
        row_choice.tokens_per_s(make_spec(), jax.devices()[0], 3, corpus)


def test_a_rate_counts_the_tokens_of_all_rows(make_spec, corpus, monkeypatch):
    """Against a clock that says one second a dispatch."""
    seconds = iter(range(0, 100, row_choice.N_TIMED))
    monkeypatch.setattr(row_choice.time, "perf_counter", lambda: next(seconds))
    spec = make_spec()
    for n_rows in (1, 3):
        rate = row_choice.tokens_per_s(spec, jax.devices()[0], n_rows, corpus)
        assert rate == 16 * n_rows * spec.batch_tokens
