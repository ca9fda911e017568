"""Which rows of a table an expression such as `n_layers > 4 and lr < 0.01` picks.

It is read as Python but never executed: the syntax tree is walked, and only names of columns,
literals, comparisons, and/or/not, arithmetic and lists after `in` are known. `None` is an empty
value: `loss_nats is None`. A comparison with an empty value picks nothing.
"""

import ast
import difflib
import operator
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from train.config import SpecError

if TYPE_CHECKING:
    import pandas as pd

MAX_CHARACTERS = 2000
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}  # fmt: skip
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip


def rows_where(table: "pd.DataFrame", text: str) -> "pd.DataFrame":
    """The rows of which an expression is true.

    Raises: SpecError: it is malformed, names an unknown column, or holds what is not known here.
    """
    if len(text) > MAX_CHARACTERS:
        raise SpecError(f"where has {len(text)} characters; at most {MAX_CHARACTERS}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        with np.errstate(all="ignore"):
            mask = _mask(tree.body, table)
    except SpecError as error:
        raise SpecError(f"where={text!r}: {error}") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        words = getattr(error, "msg", None) or type(error).__name__
        raise SpecError(
            f'where={text!r} cannot be read ({words}); write as in "lr < 0.01"'
        ) from error
    except (TypeError, OverflowError, ZeroDivisionError) as error:
        raise SpecError(f"where={text!r} compares or adds what does not go together") from error
    return table.loc[mask]


def unknown_column(name: str, columns: Iterable[str]) -> SpecError:
    """The complaint about a column that is not there, with the closest names."""
    names = list(columns)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    close += [n for n in names if name in n and n not in close][:3]
    hint = f"; did you mean {', '.join(close)}?" if close else f"; there are: {', '.join(names)}"
    return SpecError(f"there is no column {name!r}{hint}")


def _mask(node: ast.expr, table: "pd.DataFrame") -> np.ndarray:
    """A condition as an array of truths, one a row."""
    match node:
        case ast.BoolOp(op=op, values=values):
            masks = [_mask(value, table) for value in values]
            return (np.logical_and if isinstance(op, ast.And) else np.logical_or).reduce(masks)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return ~_mask(operand, table)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            sides = [left, *comparators]
            masks = [
                _comparison(a, op, b, table)
                for a, op, b in zip(sides, ops, comparators, strict=False)
            ]
            return np.logical_and.reduce(masks)
        case ast.Name():
            values = _value(node, table)
            if values.dtype == bool:
                return values.to_numpy()
    raise SpecError(
        f"{_shown(node)} is no condition; use comparisons of columns and values, joined by "
        "and, or, not"
    )


def _comparison(left: ast.expr, op: ast.cmpop, right: ast.expr, table: "pd.DataFrame"):
    if isinstance(op, ast.In | ast.NotIn):
        if not isinstance(right, ast.List | ast.Tuple | ast.Set):
            raise SpecError(f"after in there must be a list, such as [1, 2], not {_shown(right)}")
        values = _column(left, table)
        found = values.isin([_literal(item) for item in right.elts]).to_numpy()
        return found if isinstance(op, ast.In) else ~found & values.notna().to_numpy()
    if isinstance(right, ast.Constant) and right.value is None:
        if not isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq):
            raise SpecError("None is compared by is, is not")
        is_empty = _column(left, table).isna().to_numpy()
        return is_empty if isinstance(op, ast.Is | ast.Eq) else ~is_empty
    if type(op) not in _COMPARISONS:
        raise SpecError("is and is not compare with None alone; use == and !=")
    a, b = _value(left, table), _value(right, table)
    there = np.ones(len(table), bool)
    for side in (a, b):
        if hasattr(side, "notna"):
            there &= side.notna().to_numpy()
    return np.broadcast_to(np.asarray(_COMPARISONS[type(op)](a, b), bool), len(table)) & there


def _value(node: ast.expr, table: "pd.DataFrame") -> Any:
    """A column, a literal, or arithmetic of numbers."""
    match node:
        case ast.Name(id=name):
            if name not in table.columns:
                raise unknown_column(name, table.columns)
            return table[name]
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
            value = _number(operand, table)
            return -value if isinstance(op, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_number(left, table), _number(right, table))
    raise SpecError(
        f"{_shown(node)} is not known here; use columns, numbers, texts, + - * / // % **, "
        "comparisons, and, or, not, in [...]"
    )


def _number(node: ast.expr, table: "pd.DataFrame") -> Any:
    """A value to calculate with, in float64: 9**9**9 is infinite, not endless."""
    value = _value(node, table)
    if isinstance(value, str) or str(getattr(value, "dtype", "")) in ("object", "str", "string"):
        raise SpecError(f"{_shown(node)} is text, with which there is no arithmetic")
    return value.astype(float) if hasattr(value, "astype") else np.float64(value)


def _column(node: ast.expr, table: "pd.DataFrame") -> "pd.Series":
    values = _value(node, table)
    if not hasattr(values, "isna"):
        raise SpecError(f"{_shown(node)} stands where a column must")
    return values


def _literal(node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
    except ValueError as error:
        raise SpecError(f"{_shown(node)} in a list is no number or text") from error
    if not isinstance(value, bool | int | float | str):
        raise SpecError(f"{_shown(node)} in a list is no number or text")
    return value


def _shown(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:57]}..."
