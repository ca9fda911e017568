"""Losses of a sweep's runs on several corpora: laws of shared exponents, lines between them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.analyse import Rows

if TYPE_CHECKING:
    import pandas as pd

    from analysis.fit import Fit
    from experiments.plan import Plan

Record = dict[str, Any]


def laws(
    plan: "Plan", runs: Sequence[Record], found: Sequence[dict[str, Any]], names: Sequence[str]
) -> tuple[dict[str, Rows], tuple[str, ...], dict[str, Any]]:
    """The law of shared exponents over the corpora, beside each corpus's own."""
    from analysis.fit import fit
    from analysis.laws import Chinchilla, PerCorpus
    from analysis.load import drop_flagged, points_from_runs
    from analysis.study import LEFT_OUT
    from analysis.tables import fit_rows

    table: Any = evaluated_runs(plan, runs, found)
    tables: dict[str, Rows] = {}
    words: list[str] = []
    values: dict[str, Any] = {}
    own: dict[str, Fit] = {}
    for name in names:
        points = drop_flagged(points_from_runs(table[table["corpus"] == name]), *LEFT_OUT)
        own[name] = fit(Chinchilla(), points, "ls_log")
    if len(names) == 1:
        shown = own[names[0]]
    else:
        points = drop_flagged(points_from_runs(table), *LEFT_OUT)
        shown = fit(PerCorpus(tuple(names)), points, "ls_log")
        words += [_own_sentence(name, law) for name, law in own.items()]
        values["own"] = {name: law.to_json() for name, law in own.items()}
    tables[f"{shown.law.equation} over {shown.n_rows} rows"] = fit_rows(shown)
    words.insert(0, f"law: {shown.status}; {shown.interval_method}")
    return tables, tuple(words), {"shown": shown.to_json(), **values}


def evaluated_runs(
    plan: "Plan", runs: Sequence[Record], found: Sequence[dict[str, Any]]
) -> "pd.DataFrame":
    """Runs of a plan once for each corpus, with the loss on it in place of their own."""
    import pandas as pd

    by_id = {row["run_id"]: row for row in runs}
    cells = {cell.spec.run_id: cell for cell in plan.cells}
    replaced = ("corpus", "corpus_hash", "loss_nats", "loss_se_iid", "loss_se_document")
    rows = []
    for evaluation in found:
        cell = cells[evaluation["run_id"]]
        budget = cell.isoflop_budget
        rows.append(
            {
                **by_id[evaluation["run_id"]],
                **{name: evaluation[name] for name in replaced},
                "role": cell.role,
                "isoflop_budget": float("nan") if budget is None else budget,
            }
        )
    return pd.DataFrame(rows).astype({"loss_nats": "float64", "isoflop_budget": "float64"})


def _own_sentence(name: str, law: "Fit") -> str:
    import numpy as np

    from analysis.tables import interval, number

    if not law.ok:
        return f"{name} on its own: no law, {law.status}"
    exponents = ", ".join(
        f"{key} {number(law.parameters[key], 3)} {interval(law.intervals[key], 3)}"
        for key in ("alpha", "beta")
    )
    spread = float(np.sqrt(np.mean(law.residuals**2)))
    return f"{name} on its own: {exponents}, residuals {spread:.2%}; {law.status}"


def _losses(found: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """By run, by corpus."""
    by_run: dict[str, dict[str, float]] = {}
    for evaluation in found:
        by_run.setdefault(evaluation["run_id"], {})[evaluation["corpus"]] = evaluation["loss_nats"]
    return {run: {name: losses[name] for name in names} for run, losses in by_run.items()}


def transfer_rows(
    runs: Sequence[Record], found: Sequence[dict[str, Any]], names: Sequence[str]
) -> Rows:
    """Loss of each run on each corpus, in the order of the first one's."""
    from analysis.tables import number

    by_id = {row["run_id"]: row for row in runs}
    losses = sorted(_losses(found, names).items(), key=lambda item: item[1][names[0]])
    return [
        {
            "run": run,
            "N": f"{by_id[run]['n_params_total']:,}",
            "D": f"{by_id[run]['n_tokens']:,}",
            **{name: number(loss, 5) for name, loss in on.items()},
        }
        for run, on in losses
    ]


def transfer_sentences(found: Sequence[dict[str, Any]], names: Sequence[str]) -> tuple[str, ...]:
    """Loss on each further corpus as a straight line in the loss on the first one."""
    import numpy as np

    losses = list(_losses(found, names).values())
    first = np.array([on[names[0]] for on in losses])
    sentences = []
    for name in names[1:]:
        other = np.array([on[name] for on in losses])
        if len(first) < 3 or np.ptp(first) == 0:
            continue
        slope, offset = np.polyfit(first, other, 1)
        scatter = float(np.std(other - slope * first - offset, ddof=2))
        correlation = float(np.corrcoef(first, other)[0, 1])
        sentences.append(
            f"transfer: loss on {name} = {offset:.3g} + {slope:.3g} x loss on {names[0]} "
            f"(least squares, {len(first)} runs; correlation {correlation:.3f}, scatter "
            f"{scatter:.2g} nats); it describes these runs, it is no law"
        )
    return tuple(sentences)
