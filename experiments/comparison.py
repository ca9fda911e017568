"""What pairs of runs say: gain with interval, table, sentences and page of `compare`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.table.points import Points, points_from_columns
from analysis.tables import Row, interval, number, render
from analysis.validity.gain import Gain, compute_equivalent_gain
from analysis.validity.paired import Mean, PairedGain, mean_with_interval, paired_gain
from experiments.plan import Plan
from experiments.recipe import Size
from experiments.workspace import SweepFolder
from model.accounting import train_flops_per_token
from train.config import RunSpec
from train.records import write_atomically


@dataclass(frozen=True)
class Pair:
    """Two runs of one cell and seed; `flops` is the budget of each (matmul_full)."""

    cell: int
    size: Size
    flops: float
    baseline: RunSpec
    new: RunSpec


@dataclass(frozen=True)
class Timing:
    """Seconds a step at one size: rounds by (baseline, new)."""

    size: Size
    seconds: np.ndarray

    @property
    def ratio(self) -> float:
        """New over baseline, the median of the rounds' ratios."""
        return float(np.median(self.seconds[:, 1] / self.seconds[:, 0]))


@dataclass(frozen=True)
class Comparison:
    """All that a comparison found; rows of the two tables are pairs, in the order of `pairs`.

    `seconds_per_flop` is new over baseline at each timed size; `lost` says which pairs are missing
    and why. `n_params` of the points is FLOPs per token / 6, so that C = 6ND is the exact count.
    """

    idea: str
    pairs: tuple[Pair, ...]
    baseline: Points
    new: Points
    gain: PairedGain
    frontier: tuple[Gain, ...]
    timings: tuple[Timing, ...]
    seconds_per_flop: tuple[float, ...]
    lost: tuple[str, ...]

    @property
    def seconds_factor(self) -> float:
        """Geometric mean over the timed sizes of what one FLOP of the idea costs in seconds."""
        return math.exp(float(np.mean(np.log(self.seconds_per_flop))))


def compared(
    pairs: Sequence[Pair], rows: Mapping[str, dict[str, Any]], timings: tuple[Timing, ...]
) -> Comparison:
    """Hold the sides of finished pairs against each other; other pairs are named and left out."""
    kept = tuple(p for p in pairs if all(_finished(rows, s) for s in (p.baseline, p.new)))
    lost = tuple(
        f"{p.size} at {p.flops:.3g} FLOPs, {side}: {rows[spec.run_id]['status']}"
        for p in pairs
        for side, spec in (("baseline", p.baseline), ("idea", p.new))
        if not _finished(rows, spec)
    )
    baseline, new = (_points([(p.baseline, p.new)[side] for p in kept], rows) for side in (0, 1))
    budgets = sorted({p.flops for p in kept})
    return Comparison(
        idea=pairs[0].new.idea or "",
        pairs=kept,
        baseline=baseline,
        new=new,
        gain=paired_gain(baseline, new, [p.cell for p in kept]),
        frontier=compute_equivalent_gain(baseline, new, budgets) if kept else (),
        timings=timings,
        seconds_per_flop=tuple(_seconds_per_flop(t, pairs) for t in timings),
        lost=lost,
    )


def verdict(result: Comparison) -> str:
    """One sentence: the gain with its interval, in FLOPs and in seconds, and what it comes to."""
    gain = result.gain
    if not gain.ok:
        return f"no gain can be stated: {gain.status}"
    factor = result.seconds_factor
    seconds = [x / factor for x in gain.interval]
    words = (
        f"for the same loss the baseline needs {_with_interval(gain.ratio, gain.interval)} the "
        f"FLOPs and {_with_interval(gain.ratio / factor, seconds)} the seconds "
        f"({gain.interval_level:.0%} intervals)"
    )
    kinds = [_kind(gain.interval), _kind(seconds)]
    if kinds[0] == kinds[1]:
        return f"{kinds[0]}: {words}"
    return f"{kinds[0]} in FLOPs, {kinds[1]} in seconds: {words}"


def _kind(interval: Sequence[float]) -> str:
    if interval[0] <= 1 <= interval[1]:
        return "no gain shown (the interval holds 1)"
    return "a gain" if interval[0] > 1 else "a loss"


def tables_and_sentences(
    result: Comparison, factors: tuple[float, float]
) -> tuple[dict[str, list[Row]], tuple[str, ...]]:
    """The tables by title, and the sentences under them, the verdict first."""
    tables: dict[str, list[Row]] = {
        "Pairs, by cell (loss in nats/token)": _cell_rows(result),
        "Seconds a step (medians, measured in turns)": _timing_rows(result),
        "Along the compute-optimal frontiers, each side's own joint fit": _frontier_rows(result),
    }
    mean = result.gain.difference
    sentences = (
        verdict(result),
        f"mean difference of loss over {mean.n} cells: {mean.value:+.4f} "
        f"{_signed(mean.interval)} nats/token; {result.gain.status}",
        f"learning rate: x{factors[0]:g} of the recipe's for the baseline, x{factors[1]:g} for "
        "the idea; N is FLOPs per token / 6, C the exact FLOPs of either side",
        *(f"left out: {lost}" for lost in result.lost),
    )
    return tables, sentences


def comparison_json(result: Comparison, factors: tuple[float, float]) -> dict[str, Any]:
    """The comparison as JSON values."""
    gain = asdict(result.gain) | {"cell_ratio": result.gain.cell_ratio.tolist()}
    return {
        "idea": result.idea,
        "verdict": verdict(result),
        "gain": gain,
        "seconds_factor": result.seconds_factor,
        "frontier": [asdict(g) for g in result.frontier],
        "lr_factors": list(factors),
        "pairs": [
            {
                "size": str(p.size), "train_flops": p.flops, "seed": p.new.seed_init,
                "run_id_baseline": p.baseline.run_id, "run_id_new": p.new.run_id,
                "loss_nats_baseline": result.baseline.loss_nats[i],
                "loss_nats_new": result.new.loss_nats[i],
            }
            for i, p in enumerate(result.pairs)
        ],
        "seconds_per_step": [
            {"size": str(t.size), "rounds": t.seconds.tolist()} for t in result.timings
        ],
        "lost": list(result.lost),
    }  # fmt: skip


def write_report(
    result: Comparison,
    plan: Plan,
    tables: Mapping[str, Sequence[Row]],
    sentences: Sequence[str],
    folder: SweepFolder,
) -> Path:
    """Draw the figure and write the page, report.md; its path."""
    from analysis.figures import save
    from analysis.figures.gain import draw_gain

    labels = [f"{p.size} @ {p.flops:.2g}" for p in result.pairs]
    cells = [p.cell for p in result.pairs]
    title = f"{result.idea} against the baseline"
    figure = draw_gain(title, labels, cells, result.baseline, result.new, result.gain)
    png = save(figure, folder.figures / "gain")[0]
    parts = [
        f"# {title}\n\n**{sentences[0]}**\n\n![gain]({png.relative_to(folder.path)})\n",
        *(f"## {name}\n\n{render(rows, 'markdown')}" for name, rows in tables.items()),
        "\n".join(f"- {sentence}" for sentence in sentences[1:]),
        f"\nPlan {plan.hash}, {len(plan.cells)} runs, corpus {plan.options['corpus']}, "
        f"scale {plan.options['scale']}.\n",
    ]
    path = folder.path / "report.md"
    write_atomically(path, "\n".join(parts))
    return path


def _finished(rows: Mapping[str, dict[str, Any]], spec: RunSpec) -> bool:
    return rows[spec.run_id]["status"] == "finished"


def _points(specs: Sequence[RunSpec], rows: Mapping[str, dict[str, Any]]) -> Points:
    n = [train_flops_per_token(s.model, "matmul_full") / 6 for s in specs]
    losses = [rows[s.run_id]["loss_nats"] for s in specs]
    columns = {"N": n, "D": [s.n_tokens for s in specs], "L": losses}
    return points_from_columns({k: np.array(v, np.float64) for k, v in columns.items()})


def _seconds_per_flop(timing: Timing, pairs: Sequence[Pair]) -> float:
    pair = next(p for p in pairs if p.size == timing.size)
    old, new = (train_flops_per_token(s.model, "matmul_full") for s in (pair.baseline, pair.new))
    return timing.ratio * old / new


def _cell_rows(result: Comparison) -> list[Row]:
    rows = []
    cells = sorted({p.cell for p in result.pairs})
    for cell, ratio in zip(cells, result.gain.cell_ratio, strict=True):
        of_cell = [i for i, p in enumerate(result.pairs) if p.cell == cell]
        pair = result.pairs[of_cell[0]]
        old, new = result.baseline.loss_nats[of_cell], result.new.loss_nats[of_cell]
        difference: Mean = mean_with_interval(new - old)
        rows.append(
            {
                "size": str(pair.size),
                "FLOPs": number(pair.flops, 3),
                "D, baseline": f"{pair.baseline.n_tokens:,}",
                "D, idea": f"{pair.new.n_tokens:,}",
                "seeds": str(len(of_cell)),
                "baseline": f"{old.mean():.4f}",
                "idea": f"{new.mean():.4f}",
                "difference": f"{difference.value:+.4f} {_signed(difference.interval)}",
                "gain": number(ratio, 3),
            }
        )
    return rows


def _timing_rows(result: Comparison) -> list[Row]:
    return [
        {
            "size": str(t.size),
            "baseline, ms": f"{1e3 * np.median(t.seconds[:, 0]):.2f}",
            "idea, ms": f"{1e3 * np.median(t.seconds[:, 1]):.2f}",
            "idea / baseline": f"{t.ratio:.3f}",
            "FLOPs per token": f"{t.ratio / per_flop:.3f}",
            "seconds per FLOP": f"{per_flop:.3f}",
        }
        for t, per_flop in zip(result.timings, result.seconds_per_flop, strict=True)
    ]


def _frontier_rows(result: Comparison) -> list[Row]:
    return [
        {
            "C of the idea": number(g.train_flops, 3),
            "its loss": number(g.loss_nats, 5),
            "gain": f"{number(g.ratio, 3)} {interval(g.interval, 3)}",
            "status": g.status,
        }
        for g in result.frontier
    ]


def _with_interval(value: float, bounds: Sequence[float]) -> str:
    return f"x{value:.3g} [{bounds[0]:.3g}, {bounds[1]:.3g}]"


def _signed(bounds: tuple[float, float]) -> str:
    return "" if math.isnan(bounds[0]) else f"[{bounds[0]:+.4f}, {bounds[1]:+.4f}]"
