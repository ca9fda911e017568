"""How a plan is printed: the runs, their costs, the shapes they compile to, totals, differences."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from experiments.plan import BUDGET_CONVENTION, Cell
from experiments.planning import Planned
from experiments.summary import duration
from model.accounting import FLOPS_CONVENTIONS

WIDE = 150
"""Columns of a terminal from which numbers are printed whole."""

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]


def plan_tables(found: Planned, width: int) -> Group:
    """Everything about a plan in tables that fit into `width` columns, from 80 on."""
    whole = width >= WIDE
    amount: Callable[[float], str] = (lambda n: f"{n:,}") if whole else short
    plan, gap = found.plan, 2 if whole else 1
    parts: list[RenderableType] = [
        _table(f"{plan.name}, plan {plan.hash}", found.rows, _run_columns(found, amount), gap),
        _table("Costs", found.rows, _cost_columns(found, whole), gap),
        _table("Shapes: one program each", found.shapes, _shape_columns(found, amount), gap),
        *_sentences(found),
    ]  # fmt: skip
    return Group(*parts)


def _run_columns(found: Planned, amount: Callable[[float], str]) -> list[Column]:
    columns: list[Column] = [
        ("run", lambda r: r["run_id"][:8]),
        ("role", lambda r: r["role"]),
        ("LxD", _size),
        ("N", lambda r: amount(r["n_params_total"])),
        ("D", lambda r: amount(r["n_tokens"])),
        ("unique", lambda r: amount(r["n_tokens_unique"])),
        ("epochs", _epochs),
        ("steps", lambda r: f"{r['n_steps']:,}"),
        ("batch", lambda r: str(r["batch_tokens"])),
        ("lr", lambda r: f"{r['lr']:.3g}"),
        ("seed", lambda r: str(r["seed"])),
    ]
    return columns if len({r["seed"] for r in found.rows}) > 1 else columns[:-1]


def _cost_columns(found: Planned, whole: bool) -> list[Column]:
    is_budgeted = any(row["isoflop_budget"] for row in found.rows)
    is_shared = bool(found.plan.of_role("trunk"))
    budgets = {c.isoflop_convention for c in found.plan.cells if c.isoflop_budget}
    shown = [c for c in reversed(FLOPS_CONVENTIONS) if whole or c in {BUDGET_CONVENTION, *budgets}]
    columns: list[Column] = [("run", lambda r: r["run_id"][:8])]
    if is_budgeted:
        columns += [("budget", _budget), ("off by", _off)]
    columns += [
        (f"C {name.replace('_', ' ')}", lambda r, name=name: f"{r['train_flops_' + name]:.3e}")
        for name in shown
    ]
    if is_shared:
        columns += [("C charged", lambda r: f"{r['train_flops_charged']:.3e}")]
    return [
        *columns,
        ("time", lambda r: duration(r["seconds"])),
        ("memory", lambda r: size_of(r["memory_bytes"])),
        ("disk", lambda r: size_of(r["disk_bytes"])),
        ("shape", lambda r: str(r["shape"])),
    ]


def _shape_columns(found: Planned, amount: Callable[[float], str]) -> list[Column]:
    """Shapes with their parameters by group, which are those of any of their runs."""
    first = {row["shape"]: row for row in reversed(found.rows)}

    def group(name: str) -> Callable[[Row], str]:
        return lambda r: amount(first[r["shape"]][f"n_params_{name}"])

    return [
        ("shape", lambda r: str(r["shape"])),
        ("LxD", _size),
        ("batch x context", lambda r: f"{r['batch_size']}x{r['seq_len']}"),
        ("N non-emb.", group("non_embedding")),
        ("N emb.", group("embedding")),
        ("norm", group("norm")),
        ("head", group("head")),
        ("runs", lambda r: str(r["n_runs"])),
        ("time", lambda r: duration(r["seconds"])),
    ]


def _sentences(found: Planned) -> list[str]:
    plan, sums = found.plan, found.totals
    alone = f", {sums['train_flops_standalone']:.3e} without trunks"
    shared = alone if plan.of_role("trunk") else ""
    price = "" if sums["price"] is None else f", {_money(sums['price'])} at the price given"
    lines = [
        f"{sums['n_runs']} runs, {sums['n_tokens']:,} tokens, "
        f"{sums['train_flops_charged']:.3e} training FLOPs (matmul full){shared}",
        f"estimated: {duration(sums['hours'] * 3600)} on {sums['n_workers']} workers{price}; "
        f"not yet trained: {duration(found.seconds_left)}",
        f"  from {found.calibration.source}; fits and figures come on top",
        f"memory of the largest run: {size_of(sums['memory_bytes_largest'])} and its process; "
        f"disk: {size_of(sums['disk_bytes'])}, and up to "
        f"{size_of(sums['disk_bytes_under_way'])} of states while it runs",
        *_on_slice(found),
        *_dropped(found),
        *(("warning: " if d.rule is None else "") + d.sentence for d in found.differences),
        f"overrides: {plan.overrides}" if plan.overrides else "overrides: none",
    ]
    return [escape(line) for line in lines]


def _on_slice(found: Planned) -> list[str]:
    on = found.slice
    if on is None:
        return []
    price = "" if on.price is None else f", {_money(on.price)} at the price given"
    return [
        f"on {on.topology}, {on.n_chips} chips at their peak in bfloat16: at least "
        f"{duration(on.hours * 3600)}, {on.chip_hours:.3g} chip-hours{price}; the largest run "
        f"takes the memory of {on.n_chips_of_largest}",
    ]


def _money(price: float) -> str:
    return f"{price:,.2f}" if price >= 1 else f"{price:.2g}"


def _dropped(found: Planned) -> list[str]:
    """One line a role."""
    by_role: dict[str, list[str]] = {}
    for cell in found.dropped:
        by_role.setdefault(cell.role, []).append(_named(cell))
    return [f"dropped to fit the budget: {r} {', '.join(n)}" for r, n in by_role.items()]


def _named(cell: Cell) -> str:
    model = cell.spec.model
    tokens = short(cell.spec.n_tokens)
    return f"{cell.spec.run_id[:8]} ({model.n_layers}x{model.d_model} on {tokens} tokens)"


def _table(title: str, rows: Any, columns: list[Column], gap: int) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False,
        padding=(0, gap, 0, 0),
    )  # fmt: skip
    for name, _ in columns:
        left = name in ("run", "role")
        table.add_column(name, justify="left" if left else "right", no_wrap=name == "run")
    for row in rows:
        table.add_row(*(value(row) for _, value in columns))
    return table


def _size(row: Row) -> str:
    return f"{row['n_layers']}x{row['d_model']}"


def _epochs(row: Row) -> str:
    epochs = row["n_epochs"]
    return f"{epochs:.3g}" if epochs < 100 else f"{epochs:.0f}"


def _budget(row: Row) -> str:
    return f"{row['isoflop_budget']:.3g}" if row["isoflop_budget"] else ""


def _off(row: Row) -> str:
    return f"{row['budget_error']:+.2%}" if row["isoflop_budget"] else ""


def short(n: float) -> str:
    """A count in four digits: 34.7k, 5.106M."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.4g}{unit}"
    return f"{n:.4g}"


def size_of(n_bytes: float) -> str:
    """Bytes as a person says them."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes / 1e3:.3g} kB"
