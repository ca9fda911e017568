"""What a figure draws of a paper: published points, fitted as a sweep's are, in the same inputs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import published
from analysis.conventions import ConventionRow
from analysis.figures.inputs import FigureInputs, Step
from analysis.fit import ObjectiveName, fit
from analysis.frontier.isoflop import exponents, minima
from analysis.frontier.loss_of_compute import curve_envelope, fit_frontiers
from analysis.laws import Chinchilla
from analysis.load import Points
from analysis.reproduce import gadre, muennighoff, porian
from analysis.reproduce.hoffmann import points_of_figure_4
from analysis.reproduce.tables import points, read_table

N_DRAWS = 300
SAME_BUDGET = 0.12  # in log C: how far digitised points of one budget lie apart
TUNED = "rw/tuned/short/const/standard/val"
GADRE_CORPUS = "rpj"


def inputs_of_points(
    title: str,
    corpus: str,
    table: Points,
    objective: ObjectiveName = "huber_log",
    *,
    steps: tuple[Step, ...] = (),
    references: tuple[published.PublishedLaw, ...] = (),
) -> FigureInputs:
    """The inputs of every figure from a table of final losses, in nats a token."""
    joint = fit(Chinchilla(), table, objective, n_bootstrap=N_DRAWS)
    found = minima(table)
    convention = table.n_convention, table.c_convention
    row = ConventionRow(*convention, joint, exponents(found, N_DRAWS), tuple(found))
    runs = pd.DataFrame(
        {
            "run_id": list(table.run_id),
            "status": "finished",
            "role": "grid",
            "isoflop_budget": table.budget,
            f"n_params_{table.n_convention}": table.n_params,
            f"train_flops_{table.c_convention}": table.train_flops,
            "n_tokens": table.n_tokens,
            "loss_nats": table.loss_nats,
        }
    )
    columns = ("run_id", "step", "n_tokens", "train_flops_matmul_full", "loss_nats")
    curves = pd.DataFrame({name: pd.Series(dtype=float) for name in columns})
    return FigureInputs(
        title=title,
        corpus=corpus,
        runs=runs,
        curves=curves,
        points={convention: table},
        conventions=(row,),
        frontiers=fit_frontiers(table, found, n_bootstrap=N_DRAWS),
        envelope=curve_envelope(curves),
        unit="nats/token",
        headline=convention,
        steps=steps,
        references=references,
    )


def of_hoffmann(folder: Path) -> FigureInputs:
    """The points of figure 4 that Besiroglu et al. fit, in the budgets of Hoffmann's figure 3."""
    _, kept = points_of_figure_4(folder)
    laws = (published.HOFFMANN_2022_UNROUNDED, published.BESIROGLU_2024_LAW)
    budgets = np.array(published.HOFFMANN_2022_BUDGETS)
    off = np.abs(np.log(kept.train_flops)[:, None] - np.log(budgets))
    budget = np.where(off.min(1) < SAME_BUDGET, budgets[off.argmin(1)], np.nan)
    title, corpus = "Hoffmann et al. 2022, fig. 4", "MassiveText"
    return inputs_of_points(title, corpus, replace(kept, budget=budget), references=laws)


def of_porian(folder: Path) -> FigureInputs:
    """The tuned isoFLOP points of Porian et al. with the ladder of all their corrections."""
    table = read_table(
        folder, porian.POINTS, published.PORIAN_2024_N_POINTS, numbers=("C", "N", "L"),
        words=("config",),
    )  # fmt: skip
    steps = []
    for name, config, a, interval, _ in published.PORIAN_2024_LADDER[:5]:
        runs = points(table, table["config"] == config)
        akima = exponents(minima(runs, "akima"), N_DRAWS)
        window = published.PORIAN_2024_WINDOW
        parabola = exponents(minima(runs, window=window), N_DRAWS)
        found = (("Akima minima", akima), (f"parabolas in a {window:.0%} window", parabola))
        marks = tuple((method, f.a, f.intervals["a"]) for method, f in found)
        steps.append(Step(name, marks, (a, interval)))
    tuned = points(table, table["config"] == TUNED)
    return inputs_of_points("Porian et al. 2024", "RefinedWeb", tuned, steps=tuple(steps))


def of_muennighoff(folder: Path) -> FigureInputs:
    """The runs on C4 whose data are repeated, and those whose data are not."""
    n_rows = published.MUENNIGHOFF_2023_N_RUNS
    table = read_table(folder, muennighoff.POINTS, n_rows, numbers=("N", "D", "U", "L"))
    runs = points(table, with_unique=True)
    return inputs_of_points("Muennighoff et al. 2023", "C4", runs)


def of_gadre(folder: Path) -> FigureInputs:
    """The models trained on RedPajama, with their loss on C4."""
    table = read_table(
        folder, gadre.POINTS, published.GADRE_2024_N_RUNS, numbers=("N", "D", gadre.LOSS),
        words=("name", "dataset"),
    )  # fmt: skip
    runs = points(table, table["dataset"] == GADRE_CORPUS, loss=gadre.LOSS)
    return inputs_of_points("Gadre et al. 2024", "RedPajama, loss on C4", runs)


PUBLISHED: dict[str, Callable[[Path], FigureInputs]] = {
    "hoffmann": of_hoffmann,
    "porian": of_porian,
    "muennighoff": of_muennighoff,
    "gadre": of_gadre,
}


def published_inputs(folder: Path, names: set[str]) -> dict[str, FigureInputs]:
    """Inputs of the papers named, from the folder of the published points.

    Raises: ValueError: no such folder, or a file there that is missing or not the published one.
    """
    if not folder.is_dir():
        raise ValueError(
            f"data={folder} is no folder; give the one that holds the published points"
        )
    return {name: made(folder) for name, made in PUBLISHED.items() if name in names}
