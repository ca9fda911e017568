"""Every figure of a planted sweep, drawn whole and with pieces missing."""

import math
import threading
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.text import Text

from analysis.figures import DRAWINGS, draw_all, named, not_drawn, save
from analysis.figures.allocation import allocation
from analysis.figures.inputs import run_groups
from analysis.figures.isoflop import isoflop
from analysis.figures.kaplan import kaplan_panels
from analysis.figures.position import best_of_sizes, position, shown_positions
from analysis.figures.prediction import prediction
from analysis.figures.residuals import residuals
from analysis.figures.style import power_of_ten, short, with_interval
from analysis.figures.surface import surface


def test_figures_are_written_in_three_formats(inputs, tmp_path):
    drawn = draw_all(inputs, tmp_path / "new folder", only=("residuals", "ladder"))
    names = [f"{n}.{s}" for n in ("ladder", "residuals") for s in ("png", "pdf", "svg")]
    assert [p.name for p in drawn] == names
    heads = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}
    for path in drawn:
        content = path.read_bytes()
        assert content.startswith(heads[path.suffix])
        assert len(content) > 10_000
    assert len(list(drawn[0].parent.iterdir())) == len(drawn), "a temporary file was left"


def test_equal_figures_give_equal_bytes(inputs, tmp_path):
    first, again = (save(allocation(inputs), tmp_path / k / "allocation") for k in "ab")
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    assert b"CreationDate" not in first[1].read_bytes()


def test_figures_name_corpus_unit_conventions_and_runs(figures):
    for name, figure in figures.items():
        written = " ".join(" ".join(t.get_text() for t in figure.findobj(Text)).split())
        assert "corpus planted-corpus" in written, name
        assert "nats/byte" in written, name
        assert "26 runs: " in written, name
        assert "total" in written and ("matmul_full" in written or "C = 6ND" in written), name


def test_nothing_is_left_in_pyplot(figures):
    from matplotlib import pyplot

    assert figures and not pyplot.get_fignums()


def test_figures_are_drawn_in_threads(inputs, tmp_path):
    failures = []

    def work(name: str) -> None:
        try:
            save(residuals(inputs), tmp_path / name)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(str(k),)) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


MISSING = {
    "allocation": "joint fit: no exponent, too few points",
    "isoflop": "refused, too few points: 3 sizes, 4 needed",
    "surface": "no surface: the joint fit failed: too few points",
    "residuals": "the joint fit failed: too few points",
    "kaplan_panels": "no L(D): the joint fit failed: too few points",
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_pieces_give_a_note(name, sparse, texts):
    (drawing,) = named([name])
    empty = replace(
        sparse, curves=sparse.curves.iloc[:0], held_out=(), frontiers=(), ngram_entropies=None
    )
    assert not sparse.main.fit.ok and not sparse.main.isoflop.ok
    for inputs in (sparse, empty):
        assert MISSING[name] in texts(drawing.draw(inputs))


def test_figures_without_their_records_are_said_and_not_drawn(sparse, tmp_path):
    empty = replace(sparse, curves=sparse.curves.iloc[:0], held_out=())
    reasons = not_drawn(empty)
    assert set(reasons) == {d.name for d in DRAWINGS} - set(MISSING) - {"ladder"}
    assert reasons["learning_curves"] == "no training curves were recorded"
    assert reasons["prediction"] == "no held-out run has been predicted yet"
    assert "run critical_batch" in reasons["min_compute"]
    assert "no evaluation by token position" in reasons["position"]
    assert reasons["repetition"] == "no run saw a token twice"
    assert reasons["approaches"].startswith("the joint fit failed: too few points")
    assert all("\n" not in reason for reason in reasons.values())
    assert draw_all(empty, tmp_path, only=("prediction", "envelope")) == []


def test_an_unknown_figure_is_refused_with_the_list(inputs, tmp_path):
    with pytest.raises(ValueError, match="only='fig1' is no figure; use one of allocation, "):
        draw_all(inputs, tmp_path, only=("isoflop", "fig1"))
    assert not list(tmp_path.iterdir())


def test_refused_minimum_is_hollow_with_its_reason(inputs, texts):
    first = inputs.main.minima[0]
    reason = "minimum at the edge: the smallest size has the lowest loss"
    refused = replace(first, ok=False, status=reason, n_params=math.nan, loss_nats=math.nan)
    row = replace(inputs.main, minima=(refused, *inputs.main.minima[1:]))
    figure = isoflop(replace(inputs, conventions=(row, *inputs.conventions[1:])))
    written = texts(figure)
    assert reason in written and "refused" in written
    stars = {
        str(collection.get_label()): collection.get_facecolor()
        for collection in figure.axes[0].collections
        if "10¹¹" in str(collection.get_label())
    }
    hollow = [label for label, face in stars.items() if not len(face)]
    assert len(stars) == 4 and len(hollow) == 1 and "refused" in hollow[0]


def test_no_accepted_minimum_and_one_budget(inputs, texts):
    refused = tuple(
        replace(m, ok=False, status="concave: x", n_params=math.nan) for m in inputs.main.minima
    )
    for minima in (refused, refused[:1], ()):
        row = replace(inputs.main, minima=minima)
        written = texts(isoflop(replace(inputs, conventions=(row, *inputs.conventions[1:]))))
        assert "no accepted minimum, so no N*(C)" in written
        assert minima or "no run belongs to an isoFLOP budget" in written


@pytest.mark.parametrize("draw", [kaplan_panels, residuals, surface, prediction])
def test_runs_left_out_are_hollow_with_the_reason(inputs, texts, draw):
    figure = draw(inputs)
    assert "not fitted (4), pre-asymptotic, e.g. " in texts(figure)
    marked = [
        collection
        for ax in figure.axes
        for collection in ax.collections
        if "pre-asymptotic" in str(collection.get_label())
    ]
    assert marked
    assert all(not len(c.get_facecolor()) for c in marked)


def test_every_run_with_a_loss_is_in_one_group(inputs):
    groups = run_groups(inputs)
    assert sum(len(g) for g in groups) == inputs.runs["loss_nats"].notna().sum()
    assert not groups[0].reason
    assert [g.is_fitted for g in groups if "held out" in g.reason] == [False]


def test_residuals_shown_are_those_of_the_fit(inputs):
    panel = residuals(inputs).axes[0]
    shown = np.concatenate(
        [np.asarray(c.get_offsets())[:, 1] for c in panel.collections
         if str(c.get_label()).startswith("fitted")]
    )  # fmt: skip
    assert np.allclose(np.sort(shown), np.sort(inputs.main.fit.residuals))


def test_limits_are_labelled_as_limits_of_the_joint_fit(inputs, texts):
    written = texts(kaplan_panels(inputs))
    for name in ("L(D), limit N → ∞ of the joint fit", "L(N), limit D → ∞ of the joint fit"):
        assert name in written
    for n in (3, 4):
        assert f"{n}-gram" in written


def test_allocation_shows_every_method_and_the_published_lines(inputs, texts):
    figure = allocation(inputs)
    written = texts(figure)
    for text in ("Kaplan 2020 0.73", "0.50 / 0.49 / 0.46", "N non_embedding C 6n_non_embedding"):
        assert text in written
    joint = inputs.main.fit
    numeric = with_interval(joint.allocation["a_numeric"], joint.allocation_intervals["a_numeric"])
    assert numeric in written


def test_prediction_says_hit_and_miss(inputs, texts):
    sure = replace(inputs.held_out[0].prediction, new_run_interval=(1.0, 1.1))
    untrained = replace(inputs.held_out[0], measured_loss_nats=None)
    wide = replace(inputs.held_out[0].prediction, new_run_interval=(1.0, 3.0))
    cases = {
        "MISS": replace(inputs.held_out[0], prediction=sure),
        "hit": replace(inputs.held_out[0], prediction=wide),
        "not trained yet": untrained,
    }
    for verdict, held_out in cases.items():
        written = texts(prediction(replace(inputs, held_out=(held_out,))))
        assert verdict in written.split("\n")
    assert "measured: the held-out run is not trained yet" in written


def test_frontier_of_another_convention_is_not_drawn_over_curves(inputs, texts):
    other = tuple(
        replace(f, power=replace(f.power, c_convention="6n_total")) for f in inputs.frontiers
    )
    written = texts(kaplan_panels(replace(inputs, frontiers=other)))
    assert "no L(C): fitted in 6n_total, curves are in matmul_full" in written


def test_inputs_that_do_not_belong_together_are_refused(inputs):
    with pytest.raises(ValueError, match="headline="):
        replace(inputs, headline=("total", "matmul_causal"))
    with pytest.raises(ValueError, match="points lack"):
        replace(inputs, points={})
    swapped = dict.fromkeys(inputs.points, inputs.points[("total", "6n_total")])
    with pytest.raises(ValueError, match="not the table that was fitted"):
        replace(inputs, points=swapped)


def test_a_dollar_in_the_corpus_name_is_not_a_formula(inputs, texts):
    written = texts(residuals(replace(inputs, corpus=r"a$\frac", title="$b$")))
    assert r"a\$\frac" in written


def test_numbers_as_text():
    assert short(8_240) == "8.24k" and short(2.4e12) == "2.4e+12" and short(math.nan) == "none"
    assert power_of_ten(1e11) == "10¹¹" and power_of_ten(2e-5) == "2×10⁻⁵"
    assert with_interval(0.5, (0.4, 0.6)) == "0.50 [0.40, 0.60]"
    assert with_interval(0.5, (math.nan, math.nan)) == "0.50 (no interval)"
    assert with_interval(math.nan, (0.0, 1.0)) == "none"


def test_position_figure_shows_the_best_run_of_each_size_with_its_law(inputs, texts):
    shown = best_of_sizes(inputs)
    finished = inputs.runs[inputs.runs["status"] == "finished"]
    best = finished.groupby("n_params_total")["loss_nats"].min()
    assert list(shown) == best.index.tolist() == sorted(shown)
    for size, found in shown.items():
        assert found.loss_nats.mean() == pytest.approx(best[size])
    written = texts(position(inputs))
    for size in shown:
        assert f"N = {short(size)}: " in written
    assert written.count("/ t^0.70") == len(shown), "the planted exponent"
    assert "t = 1\n" in written and "t = 64" in written


def test_single_positions_are_powers_of_two_and_the_last(inputs):
    found = next(iter(best_of_sizes(inputs).values()))
    assert shown_positions(found) == {str(t): t - 1 for t in (1, 2, 4, 8, 16, 32, 64)}
    binned = replace(
        found, first=np.array([1.0, 2, 3, 6]), last=np.array([1.0, 2, 5, 12]),
        loss_nats=np.ones(4), se_document=np.ones(4),
    )  # fmt: skip
    assert shown_positions(binned) == {"1": 0, "2": 1, "3-5": 2, "6-12": 3}


@pytest.mark.parametrize(("floor", "said"), [(1.4, "floor"), (0.3, "floor 0.30 ↓")])
def test_the_floor_of_a_known_language_is_a_line_or_named_under_the_axis(inputs, floor, said):
    figure = isoflop(replace(inputs, entropy_floor_nats=floor))
    panel = figure.axes[0]
    assert said in [text.get_text() for text in panel.texts]
    across = [line.get_ydata()[0] for line in panel.lines if line.get_xdata()[0] == 0]
    low, _ = panel.get_ylim()
    assert (low < floor and floor in across) if said == "floor" else low > floor


def test_a_legend_of_many_budgets_names_some(inputs, texts):
    minima = tuple(
        replace(m, budget=m.budget * 1.01**k) for m in inputs.main.minima for k in range(15)
    )
    many = replace(inputs, conventions=(replace(inputs.main, minima=minima),))
    figure = isoflop(many)
    assert "one in 3 named" in texts(figure)
    legend = figure.axes[0].get_legend()
    assert legend is not None and len(legend.get_texts()) == 21
