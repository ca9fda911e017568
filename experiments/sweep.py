"""Sweep: batches and learning rates around a recipe, and which of them was best.

Question: is the recipe's learning rate, or its batch, the best one for these sizes and tokens?
Source: none: a look before a study. `tune` fits laws to such searches (Li et al. 2025,
    arXiv:2503.04715).
Command: python launch.py run sweep --sizes 2x24 --tokens 5e5 --batches 4 8 16 --rates 0.5 1 2
Cost: what `plan` says; 7.0e11 training FLOPs in 9 runs as it stands.
Result: a table of losses, the best of each size and D, and whether it is at an edge.
"""

import statistics
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from analysis.load import Sweep
from analysis.tables import number
from experiments import choices, grid
from experiments.ending import Ending
from experiments.plan import Plan
from train.data.corpora import TokenizedCorpus

VARIES = ("batch_size", "optimizer.lr")
"""Fields of a spec that differ on purpose, beside size, tokens and seeds."""


@dataclass(frozen=True)
class Options(choices.Choices):
    """What can be varied from the command line."""

    sizes: tuple[str, ...] = ("2x24",)
    """Layers x width, or a family of model.ladders, such as small or kaplan:1e6."""
    tokens: tuple[float, ...] = (500_000.0,)
    """D of every size."""
    batches: tuple[int, ...] = (4, 8, 16)
    """Sequences a step."""
    rates: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Multiples of the recipe's learning rate."""


class Tried(NamedTuple):
    """A point of the sweep; its seeds are averaged."""

    size: str
    n_tokens: float
    batch_size: int
    lr: float


def plan(options: Options, corpus: TokenizedCorpus) -> Plan:
    """Every size and D at every batch and rate.

    Raises: SpecError: an option gives runs that cannot be (the message says which field).
    """
    at = choices.setting(options, corpus)
    cells = grid.batch_and_rate(
        at, choices.shapes_of(options.sizes), choices.tokens_of(options.tokens),
        batches=choices.tokens_of(options.batches, "batches"),
        rate_factors=choices.positive(options.rates, "rates"),
    )  # fmt: skip
    cells += grid.with_seeds(cells, options.seeds - 1)
    return choices.plan_of("sweep", options, cells)


def conclude(plan: Plan, sweep: Sweep) -> Ending:
    """Losses by batch and rate, and the best of each size and D (seeds averaged)."""
    every = sweep.runs.to_dict("records")
    losses: dict[Tried, list[float]] = defaultdict(list)
    for run in every:
        if run["status"] == "finished":
            # D is a whole number of steps, and so differs a little between batches.
            n_tokens = float(f"{run['n_tokens']:.2g}")
            size = f"{run['n_layers']}x{run['d_model']}"
            losses[Tried(size, n_tokens, run["batch_size"], run["lr"])].append(run["loss_nats"])
    means = {tried: statistics.fmean(of_seeds) for tried, of_seeds in sorted(losses.items())}
    found: dict[tuple[str, float], list[Tried]] = defaultdict(list)
    for tried in means:
        found[tried.size, tried.n_tokens].append(tried)
    rows, sentences = [], []
    for (size, n_tokens), tried in found.items():
        best = min(tried, key=means.__getitem__)
        rows += [_row(one, means[one], one is best) for one in tried]
        sentences.append(
            f"{size} at {n_tokens:.3g} tokens: lowest loss {means[best]:.4f} nats/token at "
            f"batch {best.batch_size} and rate {best.lr:.3g}{_edges(best, tried)}"
        )
    n_lost = len(every) - sum(map(len, losses.values()))
    if n_lost:
        sentences.append(f"{n_lost} runs diverged and are not in the table")
    sentences.append("No law is fitted to a sweep; `tune` fits those of rate and batch.")
    values = [{**tried._asdict(), "loss_nats": loss} for tried, loss in means.items()]
    return Ending(
        {"Losses by batch and rate, seeds averaged": rows},
        tuple(sentences),
        {"losses": values, "n_diverged": n_lost},
    )


def _row(tried: Tried, loss_nats: float, is_best: bool) -> dict[str, str]:
    return {
        "LxD": tried.size,
        "D": f"{tried.n_tokens:.3g}",
        "batch": str(tried.batch_size),
        "lr": number(tried.lr, 3),
        "loss": f"{loss_nats:.4f}",
        "best": "*" if is_best else "",
    }


def _edges(best: Tried, tried: list[Tried]) -> str:
    """Where the best lies at an edge of what was tried, in words."""
    rates = sorted(one.lr for one in tried if one.batch_size == best.batch_size)
    batches = sorted({one.batch_size for one in tried})
    told = [
        label
        for label, value, values in (
            ("batches", best.batch_size, batches),
            ("rates", best.lr, rates),
        )
        if len(values) > 1 and value in (values[0], values[-1])
    ]
    return f"; at the edge of the {' and '.join(told)} tried: widen them" if told else ""
