"""Pages of results, written from kept records: the same records, the same page.

docs/results/data/NAME/ holds what a finished sweep of an experiment left: plan, runs, evaluations,
curves (thinned), prediction and score. `results` reads these and nothing else and writes
docs/results/NAME.md with its figures, predictions.md, README.md and summary.md. What people write
is in docs/results/prose/NAME.txt and LOG.md; numbers are {name} there and come from the records.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.load import Sweep, load_sweep
from analysis.tables import Row, render
from experiments.ending import Ending
from experiments.keeping import keep, kept
from experiments.plan import Plan
from experiments.workspace import SweepFolder, Workspace, read_json
from train.config import SpecError
from train.records import write_atomically

EXPERIMENTS = ("hoffmann_2022", "wsd_2024", "kaplan_2020", "porian_2024")
HOME = Path("docs/results")
PLACEHOLDER = re.compile(r"\{(\w+)\}")
PREDICTION_NOTE = (
    "Each prediction was written, and its file hashed, before the run was trained (`blind`: no "
    "record of the run existed then). A hit is a measured loss within the interval of one new run; "
    "it is never rewritten, and a miss stays."
)


@dataclass(frozen=True)
class ResultsFlags:
    """Which records to draw, and which to keep first."""

    home: Path = HOME
    """Folder of the pages; the records lie in its data/."""
    keep_from: Path | None = None
    """Output folder whose finished sweeps of these experiments are copied into data/ first."""
    scale: str = "laptop"
    """Scale of the sweeps to keep."""


def results(flags: ResultsFlags) -> int:
    """Draw every page of results again from the kept records."""
    if flags.keep_from is not None:
        for name in EXPERIMENTS:
            print(keep(name, flags.scale, Workspace(flags.keep_from), flags.home))
    written = [name for name in EXPERIMENTS if kept(name, flags.home).plan.exists()]
    if not written:
        raise SpecError(
            f"{flags.home / 'data'} holds no records; run an experiment, then launch.py results "
            "--keep-from OUT"
        )
    found = {}
    for name in written:
        found[name] = concluded(kept(name, flags.home))
        write_page(name, found[name], flags.home)
        print(f"wrote {flags.home / name}.md")
    write_predictions(written, flags.home)
    write_index(found, flags.home)
    print(f"wrote {flags.home}/predictions.md, README.md and summary.md")
    return 0


def concluded(folder: SweepFolder) -> tuple[Plan, Sweep, Ending]:
    """The plan, records and ending of kept records."""
    from experiments import ending
    from experiments.plan import frozen_plan

    plan, sweep = frozen_plan(folder), load_sweep(folder.path)
    experiment = ending.of_plan(plan)
    assert experiment is not None
    return plan, sweep, experiment.conclude(plan, sweep)


def write_page(name: str, found: tuple[Plan, Sweep, Ending], home: Path) -> None:
    """The page of an experiment and its figures."""
    from analysis.figures.style import save

    plan, sweep, ending = found
    folder = home / "figures" / name
    shutil.rmtree(folder, ignore_errors=True)
    for figure, (drawn, _) in ending.figures.items():
        save(drawn, folder / figure, ("png",))
    text = page(name, plan, sweep, ending, prose_of(name, home), scores_of(name, home))
    write_atomically(home / f"{name}.md", text)


def prose_of(name: str, home: Path) -> str:
    """What a person wrote of an experiment; empty before anyone did."""
    path = home / "prose" / f"{name}.txt"
    return path.read_text() if path.exists() else ""


def scores_of(name: str, home: Path) -> list[Row]:
    """The predictions of an experiment's held-out run, as they were written, and what came."""
    folder = kept(name, home)
    if not folder.prediction.exists():
        return []
    written = read_json(folder.prediction)
    score = read_json(folder.score) if folder.score.exists() else None
    entries = (score or written)["predictions"]
    measured = score["measured_loss_nats"] if score else None
    return [_score_row(name, written, entry, measured) for entry in entries]


def _score_row(
    name: str, written: Mapping[str, Any], entry: Mapping[str, Any], measured: float | None
) -> Row:
    def span(key: str) -> str:
        low, high = entry[key]
        return "-" if low is None or high is None else f"[{low:.4f}, {high:.4f}]"

    verdict = {True: "hit", False: "miss", None: "none"}[entry.get("hit")]
    return {
        "experiment": name,
        "run": written["run_id"][:8],
        "D": f"{written['n_tokens']:,}",
        "law": f"{entry['version']}, N {entry['n_convention']} = {entry['n_params']:,.0f}",
        "predicted": f"{entry['loss_nats']:.4f}" if entry["ok"] else entry["status"],
        "mean, 90%": span("mean_interval") if entry["ok"] else "-",
        "one new run, 90%": span("new_run_interval") if entry["ok"] else "-",
        "measured": "-" if measured is None else f"{measured:.4f}",
        "blind": "yes" if written["is_blind"] else "no",
        "verdict": verdict,
    }


def page(
    name: str, plan: Plan, sweep: Sweep, ending: Ending, prose: str, scores: Sequence[Row]
) -> str:
    """The page as Markdown: header, prose, figures, tables, prediction, where it comes from."""
    from experiments.catalog import find

    title, _, rest = (find(name).__doc__ or name).partition("\n")
    header = dict(_fields(rest))
    question = header["Question"][:1].upper() + header["Question"][1:]
    lines = [f"# {title.strip().rstrip('.')}", "", f"**Question.** {question}", ""]
    lines += [f"**Source.** {header['Source']}", "", f"**Command.** `{header['Command']}`", ""]
    numbers = {**ending.values["named"], **_first_score(scores)}
    lines += [with_numbers(prose, numbers).strip(), ""] if prose else []
    for figure, (_, caption) in ending.figures.items():
        lines += [f"![{figure}](figures/{name}/{figure}.png)", "", f"*{caption}*", ""]
    for heading, rows in ending.tables.items():
        if not rows:
            continue
        lines += [f"## {heading}", "", render(list(rows), "markdown").strip(), ""]
    if scores:
        lines += ["## The run that was predicted", "", PREDICTION_NOTE, ""]
        lines += [render(list(scores), "markdown").strip(), ""]
    lines += ["## Where this comes from", ""]
    lines += [line for sentence in ending.sentences for line in (sentence, "")]
    lines += [provenance(sweep), ""]
    return "\n".join(lines)


def _first_score(scores: Sequence[Row]) -> dict[str, str]:
    """The first prediction of the held-out run, for prose."""
    if not scores:
        return {}
    row = scores[0]
    return {
        "predicted": f"{row['predicted']} {row['one new run, 90%']}",
        "predicted_mean": row["mean, 90%"],
        "measured": row["measured"],
        "verdict": row["verdict"],
    }


def with_numbers(prose: str, named: Mapping[str, str]) -> str:
    """Prose with the records' numbers in place of {name}.

    Raises: SpecError: a name that the records do not give.
    """

    def number(match: re.Match[str]) -> str:
        if match[1] not in named:
            known = ", ".join(sorted(named))
            raise SpecError(f"prose names {{{match[1]}}}, which is no number here; use {known}")
        return named[match[1]]

    return PLACEHOLDER.sub(number, prose)


def _fields(text: str) -> list[tuple[str, str]]:
    """The fields of an experiment's header: a word and a colon at the start of a line."""
    found = re.findall(r"^(\w+): (.*(?:\n    .*)*)", text, re.MULTILINE)
    return [(name, re.sub(r"\s+", " ", value)) for name, value in found]


def provenance(sweep: Sweep) -> str:
    """On what the runs were trained, and by which versions."""
    runs = sweep.runs

    def of(column: str) -> str:
        return ", ".join(sorted({str(value) for value in runs[column]}))

    commits = ", ".join(sorted({str(commit)[:8] for commit in runs["git_commit"]}))
    corpus_hash, flops = runs["corpus_hash"].iloc[0], runs["train_flops_charged"].sum()
    return (
        f"{len(runs)} runs on {of('corpus')} ({of('tokenizer')}, hash {str(corpus_hash)[:12]}), "
        f"{flops:.3g} training FLOPs charged; modes: {of('mode')}; jax {of('jax_version')}; code "
        f"{commits}. Records: [data](data/). Runs that several experiments share were trained once."
    )


def write_predictions(names: Sequence[str], home: Path) -> None:
    """The score of all predictions."""
    rows = [row for name in names for row in scores_of(name, home)]
    n_scored = [row for row in rows if row["verdict"] in ("hit", "miss")]
    n_hits = sum(row["verdict"] == "hit" for row in n_scored)
    words = (
        f"{n_hits} of {len(n_scored)} predictions hit; predictions of one run by several laws or "
        "counts of N are not independent."
    )
    table = render(rows, "markdown").strip() if rows else "No prediction yet."
    text = f"# Predictions\n\n{PREDICTION_NOTE}\n\n{words}\n\n{table}\n"
    write_atomically(home / "predictions.md", text)


def write_index(found: Mapping[str, tuple[Plan, Sweep, Ending]], home: Path) -> None:
    """The index of the pages, and the table of what was reproduced."""
    from experiments.catalog import find

    rows = [row for name, (_, _, ending) in found.items() for row in summary_rows(name, ending)]
    table = render(rows, "markdown").strip()
    write_atomically(home / "summary.md", f"{table}\n")
    pages = [
        f"- [{(find(name).__doc__ or name).splitlines()[0].rstrip('.')}]({name}.md)"
        for name in found
    ]
    text = [
        "# Results", "",
        "Own runs, at the scale of a laptop, of the experiments that the field rests on. Pages are "
        "drawn from the records in [data](data/) by `make results`; what agreed and what did not "
        "is on each page, in words that take their numbers from the same records.", "",
        "`python launch.py run NAME` trains one (`--scale smoke` in a minute; `plan NAME --scale "
        "gpu` or `pod` says what it would cost on larger machines, on a `--corpus` that is large "
        "enough), and `python launch.py results --keep-from out` keeps its records and draws the "
        "pages.", "",
        *pages, "- [Predictions, and how they came out](predictions.md)",
        "- [Lab notebook](LOG.md)", "", table, "",
    ]  # fmt: skip
    write_atomically(home / "README.md", "\n".join(text))


def summary_rows(name: str, ending: Ending) -> list[Row]:
    """What an experiment reproduced: quantity, here with its interval, and as printed."""
    return [
        {"quantity": quantity, "here": here, "paper": paper, "page": f"[{name}]({name}.md)"}
        for quantity, here, paper in ending.values.get("summary", ())
    ]
