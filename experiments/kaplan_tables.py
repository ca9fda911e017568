"""What `kaplan_2020` found, as rows of tables and as numbers by name."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import published
from analysis.fit import Fit
from analysis.intervals.uncertainty import percentile_interval
from analysis.positions import fit_position
from analysis.tables import Row, number
from experiments.paper_laws import parameter, with_interval

if TYPE_CHECKING:
    from analysis.figures.inputs import FigureInputs
    from analysis.figures.shapes import Shape

COUNTS = {"total": "with embeddings", "non_embedding": "without embeddings"}


def single_rows(laws: dict[str, Fit], inputs: "FigureInputs") -> list[Row]:
    """L(N), L(D) and L(C) beside the printed exponents."""
    printed = {"L(N), without embeddings": "0.076", "L(D), largest model": "0.095"}
    rows: list[Row] = [
        {
            "law": name,
            "exponent": parameter(found, "alpha"),
            "printed": printed.get(name, "-"),
            "points": str(found.n_rows),
            "status": found.status,
        }
        for name, found in laws.items()
    ]
    for frontier in inputs.frontiers:
        for label, found in (("no floor", frontier.power), ("floor", frontier.power_floor)):
            rows.append(
                {
                    "law": f"L(C) along {frontier.source}, {label}",
                    "exponent": parameter(found, "alpha"),
                    "printed": "0.057" if label == "no floor" else "-",
                    "points": str(found.n_rows),
                    "status": found.status,
                }
            )
    return rows


def joint_rows(both: dict[str, Fit]) -> list[Row]:
    """L(N, D) and L(N, S) beside the printed parameters."""
    printed = {
        "L(N, D)": published.KAPLAN_2020_ND.parameters,
        "L(N, S)": published.KAPLAN_2020_NS.parameters,
    }
    return [
        {
            "law": law,
            "parameter": name,
            "here": parameter(found, name),
            "printed": number(printed[law][name], 3),
            "status": found.status,
        }
        for law, found in both.items()
        for name in found.law.parameter_names
    ]


def shape_rows(found: "Sequence[Shape]") -> list[Row]:
    """Excess loss of every shape."""
    return [
        {
            "LxD": f"{s.n_layers}x{s.d_model}",
            "width of a head": str(s.d_head),
            "width / depth": number(s.d_model / s.n_layers, 3),
            "excess loss": f"{s.excess:.1%}",
            "of seeds": ", ".join(f"{value:.1%}" for value in s.excess_of_seeds),
        }
        for s in sorted(found, key=lambda s: (s.d_head, s.d_model / s.n_layers))
    ]


def _rms(found: Fit) -> str:
    return f"{float(np.sqrt((found.residuals**2).mean())):.2%}" if found.ok else "none"


def count_rows(inputs: "FigureInputs", laws: dict[str, Fit]) -> list[Row]:
    """The same losses against either count of N."""
    first = {row.n_convention: row for row in reversed(inputs.conventions)}
    return [
        {
            "N": name,
            "alpha of L(N)": parameter(laws[f"L(N), {name}"], "alpha"),
            "alpha of the joint fit": parameter(first[count].fit, "alpha"),
            "scatter about the joint fit": _rms(first[count].fit),
        }
        for count, name in COUNTS.items()
    ]


def position_rows(inputs: "FigureInputs") -> list[Row]:
    """The law of position of the best run of every size."""
    from analysis.figures.position import best_of_sizes

    rows: list[Row] = []
    for size, found in best_of_sizes(inputs).items():
        law = fit_position(found)
        rows.append(
            {
                "N total": f"{size:,.0f}",
                **{name: parameter(law, name) for name in ("E", "A", "alpha")},
                "first token": f"{found.loss_nats[0]:.3f}",
                "last": f"{found.loss_nats[-1]:.3f}",
            }
        )
    return rows


def named(laws, both, batches, powers, found_shapes, inputs) -> dict[str, str]:
    """Every number that prose may name."""
    nd, ns = both["L(N, D)"], both["L(N, S)"]
    kaplan = powers["values"].get(("non_embedding", "6n_non_embedding"), ("none", "none"))
    total = powers["values"].get(("total", "matmul_full"), ("none", "none"))
    law = batches[-1].law if batches else None
    inverse = (
        "none"
        if law is None
        else with_interval(float(1 / law.alpha_b[0]), percentile_interval(1 / law.alpha_b[1:]))
    )
    low, high = law.loss_range if law is not None else (math.nan, math.nan)
    finals = inputs.main_points.loss_nats
    deep = [s for s in found_shapes if s.d_head == int(inputs.runs["d_head"].iloc[0])]
    return {
        "alpha_n": parameter(laws["L(N), without embeddings"], "alpha"),
        "alpha_n_total": parameter(laws["L(N), with embeddings"], "alpha"),
        "alpha_d": parameter(laws["L(D), largest model"], "alpha"),
        "alpha_n_joint": parameter(nd, "alpha_N"),
        "alpha_d_joint": parameter(nd, "alpha_D"),
        "alpha_n_steps": parameter(ns, "alpha_N"),
        "alpha_s": parameter(ns, "alpha_S"),
        "alpha_c": parameter(inputs.frontiers[1].power, "alpha"),
        "a_minima": kaplan[0],
        "a_joint": kaplan[1],
        "a_total": total[0],
        "n_of_c": powers["values"][("C", "N")][0],
        "n_of_c_min": powers["values"].get(("C_min", "N"), ("none", ""))[0],
        "s_of_c_min": powers["values"].get(("C_min", "S_min"), ("none", ""))[0],
        "inverse_alpha_b": inverse,
        "b_losses": f"{low:.2f} to {high:.2f}",
        "final_losses": f"{finals.min():.2f} to {finals.max():.2f}" if len(finals) else "none",
        "shape_spread": f"{max((s.excess for s in deep), default=0.0):.1%}",
        "head_spread": f"{_head_spread(found_shapes):.1%}",
        **{f"scatter_{c}": _rms(row.fit) for c, row in _first(inputs).items()},
    }


def _head_spread(found: "Sequence[Shape]") -> float:
    """Largest difference of excess between heads of other widths in one depth and width."""
    by_size: dict[tuple[int, int], list[float]] = {}
    for shape in found:
        by_size.setdefault((shape.n_layers, shape.d_model), []).append(shape.excess)
    return max((max(values) - min(values) for values in by_size.values()), default=0.0)


def _first(inputs: "FigureInputs") -> dict[str, Any]:
    return {row.n_convention: row for row in reversed(inputs.conventions)}
