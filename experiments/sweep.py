"""Sweep: batches and learning rates around a recipe, and which of them was best.

Question: is the recipe's learning rate, or its batch, the best one for these sizes and tokens?
Source: none: a look before a study. `tune` fits laws to such searches (Li et al. 2025,
    arXiv:2503.04715).
Command: python launch.py run sweep --sizes 2x24 --tokens 5e5 --batches 4 8 16 --rates 0.5 1 2
Cost: what `plan` says; 7.0e11 training FLOPs in 9 runs as it stands.
Result: a table of losses, the best of each size and D, and whether it is at an edge.
"""

from collections import defaultdict
from dataclasses import dataclass

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
    runs = sweep.runs[sweep.runs["status"] == "finished"]
    keys = ["n_layers", "d_model", "n_tokens_rounded", "batch_size", "lr"]
    # D is a whole number of steps, and so differs a little between batches.
    rounded = runs.assign(n_tokens_rounded=[float(f"{d:.2g}") for d in runs["n_tokens"]])
    means = rounded.groupby(keys, as_index=False)["loss_nats"].mean()
    rows, found, sentences = [], defaultdict(list), []
    for row in means.to_dict("records"):
        found[f"{row['n_layers']}x{row['d_model']}", row["n_tokens_rounded"]].append(row)
    for (size, n_tokens), tried in found.items():
        best = min(tried, key=lambda row: row["loss_nats"])
        rows += [_row(size, n_tokens, row, row is best) for row in tried]
        sentences.append(
            f"{size} at {n_tokens:.3g} tokens: lowest loss {best['loss_nats']:.4f} nats/token at "
            f"batch {best['batch_size']} and rate {best['lr']:.3g}{_edges(best, tried)}"
        )
    n_lost = len(sweep.runs) - len(runs)
    if n_lost:
        sentences.append(f"{n_lost} runs diverged; a lower rate would end")
    sentences.append("No law is fitted to a sweep; `tune` fits those of rate and batch.")
    values = {"losses": means.to_dict("records"), "n_diverged": n_lost}
    return Ending({"Losses by batch and rate": rows}, tuple(sentences), values)


def _row(size: str, n_tokens: float, row: dict, is_best: bool) -> dict[str, str]:
    return {
        "LxD": size,
        "D tokens": f"{n_tokens:.3g}",
        "batch": str(row["batch_size"]),
        "lr": number(row["lr"], 3),
        "loss": f"{row['loss_nats']:.4f}",
        "best": "*" if is_best else "",
    }


def _edges(best: dict, tried: list[dict]) -> str:
    """Where the best lies at an edge of what was tried, in words."""
    told = []
    for name, label in (("batch_size", "batches"), ("lr", "rates")):
        of_this = [
            r for r in tried if name == "batch_size" or r["batch_size"] == best["batch_size"]
        ]
        values = sorted({row[name] for row in of_this})
        if len(values) > 1 and best[name] in (values[0], values[-1]):
            told.append(label)
    return f"; at the edge of the {' and '.join(told)} tried: widen them" if told else ""
