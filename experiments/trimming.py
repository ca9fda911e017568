"""A budget for a whole plan, in FLOPs or hours: what fits, and what goes if it does not."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from experiments.plan import Cell, Plan, charged_flops
from train.config import Budget, SpecError

FORM = re.compile(r"\s*([0-9.eE+-]+?)\s*(h|min|s|)\s*")
SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0}


@dataclass(frozen=True)
class PlanBudget:
    """At most this much for all runs of a plan: FLOPs (matmul_full, charged) or seconds."""

    amount: float
    unit: str
    """FLOPs or seconds."""
    text: str
    """As it was given."""


def parse_budget(text: str) -> PlanBudget:
    """A budget such as 1e15 (FLOPs), 2h, 90min, 600s.

    Raises: SpecError: it is none.
    """
    match = FORM.fullmatch(text)
    try:
        amount = float(match[1]) if match else 0.0
    except ValueError:
        amount = 0.0
    if match is None or not 0 < amount < float("inf"):
        raise SpecError(
            f"budget={text!r} is no budget; give training FLOPs such as 1e15, or time such as 2h, "
            "90min or 600s"
        )
    unit = match[2]
    return PlanBudget(amount * SECONDS.get(unit, 1.0), "seconds" if unit else "FLOPs", text.strip())


def total_flops(plan: Plan) -> int:
    """What a plan has to pay in training FLOPs (matmul_full): shared steps once."""
    return sum(charged_flops(job) for job in plan.jobs.values())


def within(
    plan: Plan, budget: PlanBudget, wall_seconds: Callable[[Plan], float], *, trim: bool
) -> tuple[Plan, tuple[Cell, ...]]:
    """The plan if it fits its budget, or with `trim` what is left of it, and the cells dropped.

    Dropped is the costliest run of the kind (role) that has kept the largest share of its FLOPs,
    time after time, until the rest fits: all kinds shrink alike. A trunk ends where its longest
    branch that is left needs it, and goes with the last. A trimmed plan is named by its budget.

    Args: wall_seconds: of a plan on this machine; NaN if that is not known.
    Raises: SpecError: it does not fit (the message says by how much), or nothing would be left.
    """

    def cost(candidate: Plan) -> float:
        return total_flops(candidate) if budget.unit == "FLOPs" else wall_seconds(candidate)

    needed = cost(plan)
    if needed != needed:
        raise SpecError(
            f"budget={budget.text}: how long a run takes here is not known before one has "
            "finished; give FLOPs, or train one run first"
        )
    if needed <= budget.amount and not trim:
        return plan, ()
    if not trim:
        raise SpecError(
            f"budget={budget.text} but plan {plan.name} needs {_said(needed, budget)}, "
            f"{needed / budget.amount:.2f} times as much; use --trim to drop its most expensive "
            "runs, or fewer or smaller sizes"
        )
    order = _drop_order(plan)
    # The cost falls with every drop, so the fewest that do are found by halving.
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if middle < len(order) and cost(_without(plan, order[:middle])) <= budget.amount:
            high = middle
        else:
            low = middle + 1
    if low == len(order):
        least = cost(_without(plan, order[:-1]))
        raise SpecError(
            f"budget={budget.text} leaves no run of plan {plan.name}: its cheapest needs "
            f"{_said(least, budget)}; raise the budget or plan smaller runs"
        )
    left = _without(plan, order[:low])
    return replace(left, name=trimmed_name(plan, budget)), tuple(order[:low])


def trimmed_name(plan: Plan, budget: PlanBudget) -> str:
    """The name of a plan's sweep within a budget."""
    return f"{plan.name}-within-{budget.text.replace(' ', '')}"


def _drop_order(plan: Plan) -> list[Cell]:
    """Every cell but trunks in the order in which they would go."""
    flops = {run_id: charged_flops(job) for run_id, job in plan.jobs.items()}
    kinds: dict[str, list[Cell]] = defaultdict(list)
    for cell in plan.cells:
        if cell.role != "trunk":
            kinds[cell.role].append(cell)
    for cells in kinds.values():
        cells.sort(key=lambda cell: (flops[cell.spec.run_id], cell.spec.run_id))
    whole = {role: sum(flops[c.spec.run_id] for c in cells) for role, cells in kinds.items()}
    left, order = dict(whole), []
    while kinds:
        # Of equal shares, as at first, the kind of the costliest run.
        role = max(kinds, key=lambda r: (left[r] / whole[r], flops[kinds[r][-1].spec.run_id], r))
        cell = kinds[role].pop()
        left[role] -= flops[cell.spec.run_id]
        order.append(cell)
        if not kinds[role]:
            del kinds[role]
    return order


def _without(plan: Plan, dropped: Sequence[Cell]) -> Plan:
    """The plan less some cells, its trunks as long as what is left needs them."""
    gone = {cell.spec.run_id for cell in dropped}
    cells = []
    kept = replace(plan, cells=tuple(c for c in plan.cells if c.spec.run_id not in gone))
    for cell in kept.cells:
        if cell.role == "trunk":
            steps = kept.jobs[cell.spec.run_id].branch_steps
            if not steps:
                continue
            cell = replace(cell, spec=replace(cell.spec, budget=Budget(steps=max(steps))))
        cells.append(cell)
    return replace(kept, cells=tuple(cells))


def _said(amount: float, budget: PlanBudget) -> str:
    if budget.unit == "FLOPs":
        return f"{amount:.3g} FLOPs"
    return f"{amount / 3600:.2g} h" if amount >= 3600 else f"{amount / 60:.2g} min"
