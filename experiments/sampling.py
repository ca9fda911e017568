"""Ask a finished run, or a GPT-2 of Hugging Face's layout, for text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.workspace import Workspace
from model import custom, pretrained
from model.config import ModelConfig
from model.drawing import Draws
from model.functional import Params
from model.sampling import generated, next_token_table
from train.checkpoint import load_weights, read_spec
from train.config import SpecError
from train.data.corpora import load_tokenizer
from train.data.languages.symbols import SymbolTokenizer
from train.data.tokenizer_files import read_tokenizer
from train.data.tokenizers import Tokenizer
from train.records import committed_attempt, read_run

END_OF_TEXT = "<|endoftext|>"
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True)
class TrainedRun:
    """A trained model, ready to be asked."""

    model: ModelConfig
    params: Params
    tokenizer: Tokenizer | SymbolTokenizer
    parametrization: str = "standard"

    @property
    def text_tokenizer(self) -> Tokenizer:
        """The tokenizer, if the model reads text.

        Raises: SpecError: it reads the symbols of a generated language.
        """
        if isinstance(self.tokenizer, SymbolTokenizer):
            raise SpecError(
                f"the run reads the symbols of {self.tokenizer.name}, and this takes a model of "
                "text; name a run on a corpus of text"
            )
        return self.tokenizer


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


def load_pretrained(folder: Path) -> TrainedRun:
    """A GPT-2 of Hugging Face's layout, ready to be asked.

    Raises: ValueError: a file is missing or damaged, or our model cannot compute that one.
    """
    cfg, params = pretrained.load(folder)
    tokenizer = read_tokenizer(folder)
    if tokenizer.vocab_size > cfg.vocab_size:
        raise SpecError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, but the model has "
            f"vocab_size={cfg.vocab_size}; put the model's own tokenizer there"
        )
    return TrainedRun(cfg, params, tokenizer)


def next_tokens(run: TrainedRun, prompt: str, k: int) -> list[tuple[str, float]]:
    """The k most likely next tokens after a prompt, with their probabilities."""
    table = next_token_table(
        run.model, run.params, _encode(run, prompt), k, parametrization=run.parametrization
    )
    return [(run.tokenizer.decode(np.array([token])), probability) for token, probability in table]


def continued(
    run: TrainedRun, prompts: Sequence[str], *, n_tokens: int, draws: Draws, stop: str | None = None
) -> Iterator[list[str]]:
    """Of each prompt the text that comes next, piece by piece; the prompts are not repeated.

    Args: stop: text of the token at which a continuation ends; END_OF_TEXT for the end of a
        document.
    Raises: SpecError: a prompt is empty, or `stop` is no single token.
    """
    given = [_encode(run, prompt) for prompt in prompts]
    texts = [_Text(run.tokenizer, tokens) for tokens in given]
    for tokens in generated(
        run.model, run.params, given,
        n_tokens=n_tokens, draws=draws, stop=None if stop is None else _token_of(run, stop),
        parametrization=run.parametrization,
    ):  # fmt: skip
        yield [text.with_token(token) for text, token in zip(texts, tokens, strict=True)]
    yield [text.rest() for text in texts]


class _Text:
    """Text that grows by tokens, told only so far as no later token can change it.

    The tokens `before` count as told: how a language writes a token may hang on those before.
    """

    def __init__(self, tokenizer: Tokenizer | SymbolTokenizer, before: np.ndarray):
        self._tokenizer = tokenizer
        self._tokens: list[int] = before.tolist()
        self._n_told = len(self._decoded())

    def with_token(self, token: int | None) -> str:
        """What a further token adds; nothing while a character is incomplete."""
        if token is None:
            return ""
        self._tokens.append(token)
        text = self._decoded()
        return "" if text.endswith(_INCOMPLETE) else self._told(text)

    def rest(self) -> str:
        """What was held back."""
        return self._told(self._decoded())

    def _decoded(self) -> str:
        return self._tokenizer.decode(np.array(self._tokens))

    def _told(self, text: str) -> str:
        new, self._n_told = text[self._n_told :], len(text)
        return new


def _token_of(run: TrainedRun, text: str) -> int:
    if text == END_OF_TEXT and not isinstance(run.tokenizer, SymbolTokenizer):
        return run.tokenizer.eot_id
    tokens = run.tokenizer.encode(text)
    if len(tokens) != 1:
        raise SpecError(
            f"stop={text!r} is {len(tokens)} tokens of this model; give a text that is one, or "
            f"{END_OF_TEXT}"
        )
    return int(tokens[0])


def prompt_of(run: TrainedRun, given: str | None, usual: str) -> str:
    """What to continue: what is given, or the usual text.

    Of a generated language: what is given as the language writes it, or what it begins with.
    """
    if isinstance(run.tokenizer, SymbolTokenizer):
        return run.tokenizer.prompt if given is None else run.tokenizer.decode(_encode(run, given))
    return usual if given is None else given


def _encode(run: TrainedRun, prompt: str):
    if not prompt:
        raise SpecError("prompt is empty; give at least one character")
    return run.tokenizer.encode(prompt)
