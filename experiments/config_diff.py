"""In what the runs of a plan differ, although nobody asked: by field, or by a rule.

Size, tokens, seeds and the text's unique tokens are what plans vary; an experiment names what else
it varies (`VARIES`, dotted paths of a spec). Of any other field whose value changes between runs,
it is told whether it follows a rule (a share of the steps, the width, a power of N and D), in one
line a rule, or nothing that was varied, with the runs that stand out.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.plan import Cell, Plan
from model.accounting import count_params
from train.config import RunSpec, to_json

AXES = (
    "model.n_layers", "model.d_model", "budget.steps", "budget.tokens", "budget.flops",
    "budget.flops_convention", "seed_init", "seed_data", "data.n_tokens_unique",
)  # fmt: skip
N_SHOWN = 4
MIN_RUNS, MAX_RUNS = 4, 500
"""Among which one run that breaks a rule is looked for."""


@dataclass(frozen=True)
class Difference:
    """A field that varies: the rule that it follows, or None and the runs of each value.

    `broken`: the rule that all runs but one follow, and that run.
    """

    field: str
    rule: str | None
    values: tuple[tuple[Any, tuple[str, ...]], ...]
    broken: tuple[str, str] | None = None

    @property
    def sentence(self) -> str:
        """One line for a reader."""
        if self.rule is not None:
            return f"{self.field} follows {self.rule}"
        if self.broken is not None:
            words, run_id = self.broken
            value = next(value for value, ids in self.values if run_id in ids)
            return (
                f"{self.field} follows {words}, but in run {run_id[:8]}, where it is "
                f"{_plain(value)}"
            )
        shown = "; ".join(
            f"{_plain(value)} in {_runs(ids)}" for value, ids in self.values[:N_SHOWN]
        )
        more = f"; and {n} more values" if (n := len(self.values) - N_SHOWN) > 0 else ""
        return f"{self.field} differs, which the plan does not vary: {shown}{more}"


def differences(plan: Plan, varies: Iterable[str] = ()) -> tuple[Difference, ...]:
    """Fields that vary within the runs of a plan beside its axes, those of no rule first.

    Trunks, whose rate never comes down, are compared with each other.
    """
    trunks, others = plan.of_role("trunk"), [c for c in plan.cells if c.role != "trunk"]
    found: dict[str, Difference] = {}
    for cells in (trunks, others):
        for difference in _differences(cells, {*AXES, *varies}):
            known = found.get(difference.field)
            if known is None or (known.rule is not None and difference.rule is None):
                found[difference.field] = difference
    return tuple(sorted(found.values(), key=lambda d: (d.rule is not None, d.field)))


def _differences(cells: Sequence[Cell], axes: set[str]) -> list[Difference]:
    specs = [cell.spec for cell in cells]
    values = [_flat(to_json(spec)) for spec in specs]
    found = []
    for field in dict.fromkeys(key for flat in values for key in flat):
        of_field = [flat.get(field) for flat in values]
        if field in axes or len(set(map(repr, of_field))) == 1:
            continue
        ids = defaultdict(list)
        for value, spec in zip(of_field, specs, strict=True):
            ids[value].append(spec.run_id)
        rarest_last = sorted(ids.items(), key=lambda pair: -len(pair[1]))
        by_value = tuple((value, tuple(runs)) for value, runs in rarest_last)
        rule = _rule(field, of_field, specs)
        broken = None if rule is not None else _broken(field, of_field, specs)
        found.append(Difference(field, rule, by_value, broken))
    return found


def _broken(field: str, values: Sequence[Any], specs: Sequence[RunSpec]) -> tuple[str, str] | None:
    """A rule that all runs but one follow, and that run; not looked for in very large plans."""
    if field not in RULES or not MIN_RUNS <= len(specs) <= MAX_RUNS:
        return None
    for k, spec in enumerate(specs):
        rest = [*values[:k], *values[k + 1 :]], [*specs[:k], *specs[k + 1 :]]
        if (words := _rule(field, *rest)) is not None:
            return words, spec.run_id
    return None


def _rule(field: str, values: Sequence[Any], specs: Sequence[RunSpec]) -> str | None:
    """What the values follow, in words; None if no rule that is known."""
    for words, holds in RULES.get(field, ()):
        if holds(values, specs):
            return words
    return None


def _share_of_steps(values: Sequence[Any], specs: Sequence[RunSpec]) -> bool:
    """Whether one share of the steps, rounded, gives all of them."""
    pairs = [(v, s.n_steps) for v, s in zip(values, specs, strict=True) if v is not None]
    low = max((v - 0.5) / n for v, n in pairs)
    high = min((v + 0.5) / n for v, n in pairs if v > 1 or n > 1)
    return low <= high


def _proportional_to_width(values: Sequence[Any], specs: Sequence[RunSpec]) -> bool:
    pairs = [(v, s.model.d_model) for v, s in zip(values, specs, strict=True) if v is not None]
    return max((v - 0.5) / d for v, d in pairs) <= min((v + 0.5) / d for v, d in pairs)


def _function_of(key: Callable[[RunSpec], Any]) -> Callable[..., bool]:
    """Whether equal keys have equal values, with more runs than keys: else anything would do."""

    def holds(values: Sequence[Any], specs: Sequence[RunSpec]) -> bool:
        by_key = defaultdict(set)
        for value, spec in zip(values, specs, strict=True):
            by_key[key(spec)].add(value)
        return len(by_key) < len(specs) and all(len(found) == 1 for found in by_key.values())

    return holds


def _inverse_width(values: Sequence[Any], specs: Sequence[RunSpec]) -> bool:
    """min(cap, constant / d_model), by the values themselves."""
    products = [v * s.model.d_model for v, s in zip(values, specs, strict=True)]
    constant, cap = max(products), max(values)
    expected = [min(cap, constant / s.model.d_model) for s in specs]
    return bool(np.allclose(values, expected, rtol=1e-9))


def _power(values: Sequence[Any], specs: Sequence[RunSpec]) -> bool:
    """A product of powers of N, D and batch, with more runs than exponents."""
    columns = [
        [1.0, math.log(count_params(s.model).non_embedding), math.log(s.n_tokens),
         math.log(s.batch_size)]
        for s in specs
    ]  # fmt: skip
    design, logs = np.array(columns), np.log(np.array(values, float))
    rank = np.linalg.matrix_rank(design)
    fitted = design @ np.linalg.lstsq(design, logs)[0]
    return rank < len(specs) and float(np.abs(logs - fitted).max()) < 1e-6


def _half_life(values: Sequence[Any], specs: Sequence[RunSpec]) -> bool:
    shares = [math.log(0.5) / math.log(v) / s.n_steps for v, s in zip(values, specs, strict=True)]
    return bool(np.allclose(shares, shares[0], rtol=1e-6))


def _size(spec: RunSpec) -> tuple[int, int]:
    return spec.model.n_layers, spec.model.d_model


def _size_and_tokens(spec: RunSpec) -> tuple[int, int, int]:
    return *_size(spec), spec.n_tokens


_WIDTH = ("the width", _proportional_to_width)
_OF_SIZE = ("the size alone", _function_of(_size))
_STEPS = ("the steps: one share of them", _share_of_steps)
RULES: dict[str, tuple[tuple[str, Callable[..., bool]], ...]] = {
    "model.d_ff": (_WIDTH,),
    "model.n_heads": (_WIDTH,),
    "model.n_kv_heads": (_WIDTH,),
    "model.d_head": (_OF_SIZE,),
    "schedule.warmup_steps": (_STEPS, _OF_SIZE),
    "schedule.decay_steps": (_STEPS,),
    "ema_decay": (("the steps: one half-life as a share of them", _half_life),),
    "batch_size": (("size and tokens", _function_of(_size_and_tokens)),),
    "optimizer.lr": (
        ("the width: min(a cap, a constant / width)", _inverse_width),
        ("powers of N, D and batch", _power),
    ),
}
"""By field, what it may follow without being asked about, as the rules of a recipe do."""


def _flat(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{path}{key}.")
        else:
            flat[path + key] = value
    return flat


def _plain(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _runs(ids: Sequence[str]) -> str:
    return f"run {ids[0][:8]}" if len(ids) == 1 else f"{len(ids)} runs ({ids[0][:8]}, ...)"
