"""Every figure, of planted records, against a small image of how it looked when it was looked at.

After a change that is meant: `GOLDEN=write python -m pytest tests/figures/test_golden.py`, look at
the images, and commit them. They are coarse (30 dots per inch, grey), so that fonts and versions of
matplotlib make no difference, while a panel, a curve or a legend that is gone does.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from figures.conftest import SMALL_DPI
from matplotlib.figure import Figure
from PIL import Image

from analysis.figures import inside
from analysis.figures.critical_batch import SizeFound, critical_figure
from analysis.figures.gain import draw_gain
from analysis.figures.isoflop import isoflop
from analysis.figures.published import inputs_of_points
from analysis.figures.repetition import repetition
from analysis.figures.residuals import residuals
from analysis.figures.tuning import tuning_figure
from analysis.frontier.critical_batch import Critical, CriticalLaw
from analysis.frontier.tuning import Search, batch_law, best_cell, rate_law
from analysis.laws import DataConstrained, predict
from analysis.load import points_from_columns
from analysis.validity.paired import paired_gain

GOLDEN = Path(__file__).parent / "golden"
BLOCK = 4  # pixels a side whose mean is compared
TOLERANCE = 5.0  # of 255, RMS over blocks
MOST_BYTES = 12_000


def grey(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"), np.float64)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """RMS difference of block means over the common part; infinite where sizes differ by more."""
    if max(abs(a - b) for a, b in zip(one.shape, other.shape, strict=True)) > 1:
        return float("inf")
    height, width = (
        min(sides) // BLOCK * BLOCK for sides in zip(one.shape, other.shape, strict=True)
    )
    difference = (one[:height, :width] - other[:height, :width]).reshape(
        height // BLOCK, BLOCK, width // BLOCK, BLOCK
    )
    return float(np.sqrt((difference.mean((1, 3)) ** 2).mean()))


def of_one_run() -> dict[str, Figure]:
    """The pictures of one run from the inside, of arrays that stand for one."""
    generator = np.random.default_rng(0)
    rows = np.tril(generator.random((2, 3, 8, 8)))
    tokens, title = list("attained"), ("A run", "of planted arrays")
    steps = np.geomspace(1e3, 1e6, 60)
    is_letter = np.arange(40) < 26
    return {
        "inside_attention": inside.attention(*title, rows / rows.sum(-1, keepdims=True), tokens),
        "inside_embeddings": inside.embeddings(
            *title, generator.standard_normal((40, 2)), np.array([0.5, 0.2]), list("ab" * 20),
            {"letters": is_letter, "digits": ~is_letter},
        ),
        "inside_next_tokens": inside.next_tokens(
            *title, generator.dirichlet(np.full(40, 0.3)), list("ab" * 20)
        ),
        "inside_training": inside.training(
            *title, steps, 1 + 20 / steps**0.3, np.linspace(0.01, 0, 60), 1.4, "nats/byte"
        ),
    }  # fmt: skip


def of_a_batch_sweep() -> Figure:
    """S = S_min + E_min / B at three losses, B_crit = 3000 / L^2 with 5% of noise in its draws."""
    batches = np.geomspace(64, 4096, 7)
    noise = np.exp(0.05 * np.random.default_rng(0).standard_normal(41))
    noise[0] = 1.0
    found = []
    for loss, s_min in ((3.0, 100.0), (2.6, 300.0), (2.2, 1000.0)):
        b_crit = 3000 / loss**2
        steps = s_min * (1 + b_crit / batches)
        found.append(
            Critical(loss, batches, steps, np.full(41, s_min), s_min * b_crit * noise, (), "ok")
        )
    law = CriticalLaw(3000 * noise, np.full(41, 0.5), (2.2, 3.0), "as fitted")
    size = SizeFound("2x24", tuple(found), law, ())
    return critical_figure("Planted batches", [size], corpus="planted-corpus", n_runs=21)


def of_a_rate_search() -> Figure:
    """Parabolas in log rate about lr* ~ N^-0.3 B^0.5, and in log batch about B* ~ D^0.6."""
    searches = []
    for n in (3e3, 1.4e4, 3.7e4):
        for d in (1.3e5, 3.3e5, 8.2e5):
            for batch in (128, 256, 512, 1024):
                best = 0.02 * (n / 1e4) ** -0.3 * (batch / 512) ** 0.5
                lr = best * 2.0 ** (np.arange(-2, 3) + 0.3)
                off = np.log(lr / best), np.log(batch / (300 * (d / 3e5) ** 0.6))
                loss = (1.2 + 80 / n**0.5) * (1 + 0.03 * off[0] ** 2 + 0.01 * off[1] ** 2)
                noise = 1 + 0.001 * np.random.default_rng(0).standard_normal((41, 1))
                searches.append(Search(n, 1.5 * n, d, batch, lr, loss * noise))
    cells = [best_cell(searches[first : first + 4]) for first in range(0, len(searches), 4)]
    return tuning_figure("Planted rates", searches, cells, rate_law(searches), batch_law(cells))


def of_pairs() -> Figure:
    """An idea worth 1.3 times the compute, with noise that both sides of a pair share."""
    n, d = (axis.ravel() for axis in np.meshgrid([1e4, 1e5, 1e6], [1e6, 1e7, 1e8]))
    shared = np.exp(0.003 * np.random.default_rng(0).standard_normal(len(n)))
    baseline, new = (
        points_from_columns(
            {"N": n, "D": d, "L": shared * (1.2 + 30 / (n * g) ** 0.4 + 60 / (d * g) ** 0.3)}
        )
        for g in (1.0, 1.3**0.5)
    )
    cells = list(range(len(n)))
    gain = paired_gain(baseline, new, cells, n_bootstrap=50)
    labels = [f"{a:.0e} @ {6 * a * b:.0e}" for a, b in zip(n, d, strict=True)]
    return draw_gain("Planted idea", labels, cells, baseline, new, gain)


def of_repeated_data(monkeypatch) -> Figure:
    """Up to 60 epochs of data that are worth R_D = 15 epochs at most; the law is given, since its
    fit takes half a minute (test_published.py has it)."""
    truth = {"E": 1.8, "A": 500.0, "B": 1500.0, "alpha": 0.35, "R_D": 15.0, "R_N": 5.0}
    axes = np.meshgrid([1e7, 1e8, 1e9], [1e8, 3e8, 1e9], [1, 2, 5, 20, 60], indexing="ij")
    n, u, epochs = (axis.ravel() for axis in axes)
    loss = predict(DataConstrained(), truth, n_params=n, n_tokens=u * epochs, n_tokens_unique=u)
    loss = loss * np.exp(0.002 * np.random.default_rng(0).standard_normal(len(loss)))
    table = points_from_columns({"N": n, "D": u * epochs, "U": u, "L": loss})
    inputs = inputs_of_points("planted", "planted", table)
    vector = np.array([truth[name] for name in DataConstrained().parameter_names])
    given = replace(
        inputs.main.fit,
        law=DataConstrained(),
        ok=True,
        parameters=truth,
        intervals={name: (0.9 * value, 1.1 * value) for name, value in truth.items()},
        draws=vector * (1 + 0.05 * np.random.default_rng(0).standard_normal((40, len(vector)))),
    )
    monkeypatch.setattr("analysis.figures.repetition.fit", lambda *_, **__: given)
    return repetition(inputs)


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def every_drawn(drawn, tmp_path_factory, monkeypatch_module):
    """Figures of the planted sweep and those that sweeps and runs of other kinds have."""
    others = {
        **of_one_run(),
        "critical_batch": of_a_batch_sweep(),
        "tuning": of_a_rate_search(),
        "gain": of_pairs(),
        "repetition": of_repeated_data(monkeypatch_module),
    }
    folder = tmp_path_factory.mktemp("others")
    for name, figure in others.items():
        figure.savefig(folder / f"{name}.png", dpi=SMALL_DPI)
    return [*drawn, *(folder / f"{name}.png" for name in others)]


def test_figures_look_as_they_did(every_drawn):
    drawn = every_drawn
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        for path in drawn:
            Image.open(path).convert("L").quantize(16).save(GOLDEN / path.name, optimize=True)
    assert {p.name for p in GOLDEN.iterdir()} == {p.name for p in drawn}
    off = {path.name: distance(grey(path), grey(GOLDEN / path.name)) for path in drawn}
    assert max(off.values()) < TOLERANCE, off


def test_golden_images_are_small():
    assert max(p.stat().st_size for p in GOLDEN.iterdir()) < MOST_BYTES


@pytest.mark.parametrize("draw", [isoflop, residuals])
def test_a_figure_of_other_runs_is_told_apart(draw, inputs, tmp_path):
    minima = tuple(replace(m, coefficients=None) for m in inputs.main.minima)
    rows = (replace(inputs.main, minima=minima[:2]), *inputs.conventions[1:])
    joint = replace(inputs.main.fit, parameters=inputs.main.fit.parameters | {"E": 0.8})
    rows = (replace(rows[0], fit=joint), *rows[1:])
    draw(replace(inputs, conventions=rows)).savefig(tmp_path / "other.png", dpi=30)
    golden = grey(GOLDEN / f"{draw.__name__}.png")
    assert distance(grey(tmp_path / "other.png"), golden) > TOLERANCE
