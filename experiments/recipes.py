"""Named recipes: rules that were tuned, kept with where they come from and where they hold.

out/recipes/NAME.json holds every field of the recipe, the laws behind its learning rate and batch,
the plan and the runs that they were fitted to, and the range of those runs.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.plan import Plan
from experiments.recipe import Recipe
from experiments.workspace import Workspace, read_json, write_json
from model.accounting import count_params
from train.config import SpecError, from_json, to_json
from train.records import to_plain

Range = tuple[float, float]


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe with its origin. `n_params_range` is of non-embedding parameters.

    `laws` are fits as JSON, for the reader; what runs follow are the fields of `recipe`.
    """

    name: str
    recipe: Recipe
    n_params_range: Range
    n_tokens_range: Range
    plan_hash: str
    run_ids: tuple[str, ...]
    laws: dict[str, Any]

    def save(self, workspace: Workspace) -> None:
        """Write the file, replacing one of the same name."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["recipe"] = to_json(self.recipe)
        write_json(path_of(workspace, self.name), to_plain(values))

    def warnings(self, plan: Plan) -> tuple[str, ...]:
        """How far the runs of a plan lie outside of the range that the recipe was tuned on."""
        sizes = [count_params(cell.spec.model).non_embedding for cell in plan.cells]
        tokens = [cell.spec.n_tokens for cell in plan.cells]
        return (
            *self._outside("non-embedding parameters", sizes, self.n_params_range),
            *self._outside("training tokens", tokens, self.n_tokens_range),
        )

    def _outside(self, what: str, values: Sequence[float], tuned: Range) -> tuple[str, ...]:
        low, high = tuned
        ends = (
            (max(values) / high, f"up to {max(values):,} {what}", "above"),
            (low / min(values), f"down to {min(values):,} {what}", "below"),
        )
        return tuple(
            f"warning: {reach}, {factor:.3g} times {side} the range that recipe {self.name} was "
            f"tuned on ({low:,.0f} to {high:,.0f}); its laws are extrapolated there"
            for factor, reach, side in ends
            if factor > 1.005
        )


def path_of(workspace: Workspace, name: str) -> Path:
    """The file of a named recipe.

    Raises: SpecError: the name is no plain file name.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise SpecError(f"recipe name {name!r} is no file name; use letters, digits and dashes")
    return workspace.root / "recipes" / f"{name}.json"


def load(workspace: Workspace, name: str) -> NamedRecipe:
    """A named recipe.

    Raises: SpecError: there is none of that name, or its file is damaged.
    """
    path = path_of(workspace, name)
    if not path.exists():
        known = sorted(p.stem for p in path.parent.glob("*.json"))
        raise SpecError(
            f"no recipe {name!r} in {path.parent}; there are: {', '.join(known) or 'none'}; "
            "python launch.py run tune writes one"
        )
    values = read_json(path)
    try:
        return NamedRecipe(
            name=name,
            recipe=from_json(Recipe, values["recipe"], "recipe"),
            n_params_range=_range(values["n_params_range"]),
            n_tokens_range=_range(values["n_tokens_range"]),
            plan_hash=values["plan_hash"],
            run_ids=tuple(values["run_ids"]),
            laws=values["laws"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SpecError(f"{path} is damaged ({error}); tune again, or remove it") from error


def _range(values: Any) -> Range:
    low, high = map(float, values)
    return low, high
