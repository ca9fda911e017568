"""Ask a finished run for text."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.workspace import Workspace
from model import custom
from model.config import ModelConfig
from model.functional import Params
from model.sampling import generate, next_token_table
from train.checkpoint import load_weights, read_spec
from train.config import SpecError
from train.data.corpora import load_tokenizer
from train.data.languages.symbols import SymbolTokenizer
from train.data.tokenizers import Tokenizer
from train.records import committed_attempt, read_run


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, ready to be asked."""

    model: ModelConfig
    params: Params
    tokenizer: Tokenizer | SymbolTokenizer
    parametrization: str = "standard"


def find_run(workspace: Workspace, name: str) -> dict[str, Any]:
    """The record of a run by run_id, its beginning, or "largest" (most training FLOPs).

    Raises: SpecError: no finished run of that name, or several.
    """
    ids = sorted(path.parent.name for path in workspace.runs.glob("*/run.json"))
    rows = [row for i in ids if (row := read_run(workspace.runs, i)) is not None]
    rows = [row for row in rows if row["status"] == "finished"]
    if not rows:
        raise SpecError(f"no finished run in {workspace.runs}; python launch.py run an experiment")
    if name == "largest":
        found = [max(rows, key=lambda row: row["train_flops_matmul_full"])]
    else:
        found = [row for row in rows if row["run_id"].startswith(name)]
    if len(found) != 1:
        some = ", ".join(row["run_id"] for row in (found or rows)[:5])
        raise SpecError(f"run {name!r} names {len(found)} finished runs; try one of: {some}")
    return found[0]


def load_run(workspace: Workspace, name: str) -> TrainedRun:
    """The weights of a run named as in `find_run`, ready to be asked."""
    path = committed_attempt(workspace.runs, find_run(workspace, name)).weights
    spec = read_spec(path)
    custom.look_in(workspace.ideas)
    return TrainedRun(
        spec.model,
        load_weights(path, spec.model),
        load_tokenizer(spec.data.corpus, workspace.data, spec.data.tokenizer),
        spec.parametrization,
    )


def next_tokens(run: TrainedRun, prompt: str, k: int) -> list[tuple[str, float]]:
    """The k most likely next tokens after a prompt, with their probabilities."""
    table = next_token_table(
        run.model, run.params, _encode(run, prompt), k, parametrization=run.parametrization
    )
    return [(run.tokenizer.decode(np.array([token])), probability) for token, probability in table]


def continuation(
    run: TrainedRun, prompt: str, *, n_tokens: int, temperature: float, top_k: int | None, seed: int
) -> str:
    """The prompt and its continuation."""
    given = _encode(run, prompt)
    tokens = generate(
        run.model, run.params, given,
        n_tokens=n_tokens, temperature=temperature, top_k=top_k, seed=seed,
        parametrization=run.parametrization,
    )  # fmt: skip
    if isinstance(run.tokenizer, SymbolTokenizer):
        return run.tokenizer.decode(np.concatenate([given, tokens]))
    return prompt + run.tokenizer.decode(tokens)


def prompt_of(run: TrainedRun, given: str | None, usual: str) -> str:
    """What to continue: what is given, or text; for a generated language what it begins with."""
    if given is not None:
        return given
    return run.tokenizer.prompt if isinstance(run.tokenizer, SymbolTokenizer) else usual


def _encode(run: TrainedRun, prompt: str):
    if not prompt:
        raise SpecError("prompt is empty; give at least one character")
    return run.tokenizer.encode(prompt)
