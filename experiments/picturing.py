"""The commands that draw: figures of a sweep by name, and pictures of one run from the inside."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tyro.conf import Positional

from experiments.stages import Stage
from train.config import SpecError

if TYPE_CHECKING:
    from experiments.sampling import TrainedRun

MOST_PROMPT = 64
"""Tokens of a prompt whose attention is drawn."""


@dataclass(frozen=True)
class FiguresFlags:
    """Which figures, of what, and for which page."""

    sweep: Positional[str] = "quickstart"
    """Name of the sweep; `python launch.py list` shows them."""
    out: Path = Path("out")
    """Folder of corpora, runs and sweeps."""
    only: tuple[str, ...] = ()
    """Names of figures, such as --only isoflop surface; default: all."""
    data: Path | None = None
    """Folder of the published points: figures that a paper has too show ours and theirs, drawn by
    the same function, as NAME-published."""
    layout: Literal["screen", "column"] = "screen"
    """screen: panels side by side. column: panels stacked, for one column of print (figures alone,
    NAME-column)."""
    formats: tuple[Literal["png", "pdf", "svg"], ...] = ("png",)
    """Files of each figure, such as --formats pdf svg; each takes about as long as another."""


@dataclass(frozen=True)
class InspectFlags:
    """Which run to look into, and with which text."""

    run: Positional[str] = "largest"
    """run_id (or its beginning) of a finished run; `largest` takes the one of most compute."""
    prompt: str | None = None
    """Text whose attention and next tokens are drawn. Default: "The people of the United ", or for
    a generated language what a sample of it begins with."""
    out: Path = Path("out")
    """Folder of corpora, runs and sweeps."""


def is_choice(flags: FiguresFlags) -> bool:
    """Whether some figures, or another form of them, are asked for, and no page."""
    return bool(flags.only or flags.data or flags.layout != "screen")


def figures(flags: FiguresFlags, stage: Stage) -> list[Path]:
    """Draw figures of a study; returns the files, and says which the records do not support.

    Raises: ValueError: no figure of that name, unknown sweep, or no run of it is done.
    """
    from analysis.figures import COLUMN, SCREEN, draw_all, named, not_drawn, processes_for
    from experiments import stages
    from experiments.drawing import figure_inputs
    from train.data.corpora import load

    drawings = named(flags.only)
    fitted = stages.refit(flags.sweep, stage)
    folder = stage.workspace.sweep(flags.sweep)
    plan = stages.frozen_plan(folder)
    stages.score(plan, stage.workspace, folder)
    data = plan.cells[0].spec.data
    corpus = load(data.corpus, stage.workspace.data, tokenizer=data.tokenizer)
    inputs = figure_inputs(plan, fitted, folder, corpus)
    published = None
    if flags.data is not None:
        from analysis.figures.published import published_inputs

        published = published_inputs(flags.data, {d.published for d in drawings})
    page = COLUMN if flags.layout == "column" else SCREEN
    n_processes = processes_for(len(inputs.runs))
    paths = draw_all(
        inputs, folder.figures, flags.only, page, published, flags.formats, n_processes
    )
    stage.say(f"{len(paths)} files in {folder.figures}")
    for name, reason in not_drawn(inputs, drawings).items():
        stage.say(f"{name}: not drawn of this sweep, {reason}")
    return paths


def of_ending(flags: FiguresFlags, stage: Stage) -> None:
    """The figures of a sweep whose experiment has an ending of its own.

    Raises: SpecError: a figure that it does not have, or flags that are for studies.
    """
    from experiments import stages

    if flags.data is not None or flags.layout != "screen":
        raise SpecError(f"--data and --layout are for studies; {flags.sweep} has its own figures")
    found = stages.conclude(flags.sweep, stage)
    if unknown := [name for name in flags.only if name not in found.figures]:
        raise SpecError(
            f"only={unknown[0]!r} is no figure of {flags.sweep}; it has {', '.join(found.figures)}"
        )


def inspect(flags: InspectFlags) -> list[Path]:
    """Draw a run from the inside; returns the files, which lie in OUT/inspect/RUN.

    Raises: SpecError: no such finished run, or an empty prompt.
    """
    from analysis.figures import inside
    from analysis.figures.style import save
    from experiments import sampling
    from experiments.workspace import Workspace
    from model.inspect import attention_patterns, embedding_plane
    from model.sampling import next_token_probabilities

    workspace = Workspace(flags.out)
    row = sampling.find_run(workspace, flags.run)
    run = sampling.load_run(workspace, row["run_id"])
    text = sampling.prompt_of(run, flags.prompt, "The people of the United ")
    if not text:
        raise SpecError("prompt is empty; give at least one character")
    prompt = np.asarray(run.tokenizer.encode(text))[-min(run.model.seq_len, MOST_PROMPT) :]
    names = [_named(run, token) for token in range(run.model.vocab_size)]
    foot = (
        f"run {row['run_id']}, {run.model.n_layers} layers of {run.model.d_model}, corpus "
        f"{row['corpus']}, loss {row['loss_nats']:.3f} nats a token"
    )
    asked = f"{foot}  ·  prompt {text!r}"
    drawn = {
        "embeddings": inside.embeddings(
            "Token embeddings", foot, *embedding_plane(run.params), _short_names(names),
            _kinds(names),
        ),
        "next_tokens": inside.next_tokens(
            "Next-token probabilities", asked,
            next_token_probabilities(run.model, run.params, prompt, run.parametrization), names,
        ),
        "training": inside.training(
            "Loss while training", foot, *_curve(workspace.runs, row), row["loss_nats"],
            "nats/byte" if row["tokenizer"] == "bytes" else "nats/token",
        ),
    }  # fmt: skip
    if not {"block", "attention"} & set(run.model.parts):
        patterns = attention_patterns(run.model, run.params, prompt, run.parametrization)
        drawn["attention"] = inside.attention(
            "Attention by layer and head", asked, patterns, [names[int(t)] for t in prompt]
        )
    folder = flags.out / "inspect" / str(row["run_id"])
    return [path for name, figure in drawn.items() for path in save(figure, folder / name)]


def _curve(store: Path, row: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, loss and learning rate of every logged point of a run."""
    from train.records import committed_attempt, read_points

    points = read_points(committed_attempt(store, row))
    columns = ("n_tokens", "loss_nats", "lr")
    table = [[p[name] if p[name] is not None else np.nan for name in columns] for p in points]
    tokens, loss, lr = np.array(table, np.float64).T
    return tokens, loss, lr


def _named(run: "TrainedRun", token: int) -> str:
    """A token as it can be read: a space as an open box, what is no text by its number."""
    text = run.tokenizer.decode(np.array([token]))
    if text == " ":
        return "␣"
    is_text = (
        text and all(unicodedata.category(c)[0] in "LNPSZ" for c in text) and "\ufffd" not in text
    )
    return text.replace(" ", "␣") if is_text else {"\n": "\\n", "\t": "\\t"}.get(text, f"#{token}")


def _short_names(names: list[str]) -> list[str]:
    """Names to write into a crowded plane: of letters, digits and marks, none of bare numbers."""
    return ["" if name.startswith("#") and len(name) > 1 else name for name in names]


def _kinds(names: list[str]) -> dict[str, np.ndarray]:
    """Masks of tokens by what they are."""

    def kind(name: str) -> str:
        body = name.lstrip("␣")
        if name.startswith("#") and len(name) > 1:
            return "never text by itself"
        if body.isdigit():
            return "digits"
        if body.isalpha():
            return "lower case" if body == body.lower() else "upper case"
        return "marks and spaces"

    kinds = np.array([kind(name) for name in names])
    order = ("lower case", "upper case", "digits", "marks and spaces", "never text by itself")
    return {name: kinds == name for name in order if (kinds == name).any()}
