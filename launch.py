"""The one entry point: parses, calls, prints. `python launch.py --help` says what there is."""

import argparse
import contextlib
import dataclasses
import io
import re
import signal
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes, Positional

from experiments.executors import How

HELP = """Scaling laws of GPT language models: plan, train, fit, predict, draw.

commands:
  list                 experiments and sweeps
  plan EXPERIMENT      every run with its exact cost, before a step is taken
  run EXPERIMENT       train what is missing, fit, predict, score, draw (start again at any time)
                       tune, critical_batch: their own tables; --recipe-from NAME: tuned rules
  train PLAN.json      one run of a plan over all devices, of one host or of several (--mesh)
  aot --topology v5e:4x4 --model chinchilla-1b
                       the training step compiled for a TPU slice: memory, FLOPs, least time
  status [SWEEP]       where each run stands (--watch, --json)
  table [SWEEP|all]    records as one table: --where "n_layers > 4" --columns ... --format csv
  cancel SWEEP [RUN]   keep runs from being trained; those under way stop with a checkpoint
  retry SWEEP [RUN]    let failed and cancelled runs be trained again
  fit SWEEP|CSV        fit laws to a sweep, or one law to any CSV with columns N, D, L
  check SWEEP|CSV      quality control: what is wrong with which runs, and why
  approaches SWEEP|CSV the three approaches to N*(C) side by side, each with its bias
  validate SWEEP|CSV   leave the largest runs out, predict them, rank the laws
  gain BASELINE NEW    compute-equivalent gain of a new recipe, with its interval
  compare --model.block FILE.py:NAME
                       train an idea of one's own against the baseline, in pairs: gain and interval
  final SWEEP          final loss of runs that still run, from their curves and schedules
  conventions SWEEP    the same runs under every count of N and C
  reproduce [PAPER]    published numbers against ours (--data DIR for the published points)
  figures SWEEP        draw a sweep's figures and report again from its records; --only NAME: one
                       figure, --data DIR: the paper's own beside it, --layout column: for print,
                       --formats png pdf svg
  report SWEEP [NEW]   the page that explores a sweep; with NEW: one that compares the two
  results              draw docs/results again from the kept records (--keep-from OUT: keep first)
  evaluate SWEEP|RUN   score trained weights on other corpora, by token position
  tasks RUN...         copying, sorting, cloze and other tasks after 0, 1, ... shots, by likelihood
  sample RUN           text, or the next-token table, from a trained run, or from a GPT-2 of
                       Hugging Face's layout (--pretrained DIR; so do evaluate and tasks)
  export RUN DIR       a run's weights, config and tokenizer in Hugging Face's layout
  inspect RUN          attention, embeddings and next tokens of a trained run, drawn (--prompt TEXT)
  data list|prepare|inspect [NAME]
                       the corpora, and languages of known entropy (lang:...)
  ngrams CORPUS        n-gram models of a corpus: their loss, and text or words they write

Every command has --help. Outputs go to out/ (another folder: --out DIR).
A first study: python launch.py run quickstart
"""


@dataclass(frozen=True)
class Common:
    """Where results go."""

    out: Path = Path("out")
    """Folder of corpora, runs and sweeps."""


@dataclass(frozen=True)
class StudyFlags(Common):
    """What a plan starts from."""

    recipe_from: str | None = None
    """Name of a recipe in OUT/recipes, such as `run tune` writes: its fields become the defaults of
    the recipe flags, and a plan outside of the range that it was tuned on is told so."""


@dataclass(frozen=True)
class PlanFlags(StudyFlags):
    """What `plan` writes."""

    workers: int | None = None
    """Runs side by side, for the estimate. Default: one a device."""
    json: Path | None = None
    """Write the plan and its table to this file."""
    price_per_hour: float | None = None
    """Of the machine, in whatever money: the total is told in it. With a topology, of the slice."""
    topology: str | None = None
    """Slice of TPUs such as v5e:4x4: refuse what does not fit, and say the least time and price."""
    budget: str | None = None
    """At most this for all runs: training FLOPs such as 1e15, or time such as 2h or 90min."""
    trim: bool = False
    """Drop the most expensive runs of each kind until the rest fits the budget."""


@dataclass(frozen=True)
class RunFlags(StudyFlags):
    """How `run` runs."""

    how: Annotated[How, tyro.conf.arg(name="")] = How()
    """Where runs are trained."""
    retry_diverged: float | None = None
    """Train diverged runs again at this factor of their learning rate, such as 0.5, twice at most;
    each is a new run that names the one it repeats."""
    budget: str | None = None
    """At most this for all runs: training FLOPs such as 1e15, or time such as 2h or 90min."""
    trim: bool = False
    """Drop the most expensive runs of each kind until the rest fits the budget."""


@dataclass(frozen=True)
class SweepFlags(Common):
    """A sweep by name."""

    sweep: Positional[str] = "quickstart"
    """Name of the sweep; `python launch.py list` shows them."""


def _stage(out: Path, how: How | None = None, retry_diverged: float | None = None):
    from rich.console import Console

    from experiments.stages import Stage
    from experiments.workspace import Workspace
    from model import custom

    workspace = Workspace(out)
    custom.look_in(workspace.ideas)
    console = Console(width=None if sys.stdout.isatty() else 200)
    return Stage(workspace, console, how or How(), retry_diverged)


def _experiment(name: str):
    from experiments.catalog import find

    return find(name)


def _parse(flags, command: str, args: list[str], description: str | None = None, default=None):
    """tyro's parse, with its boxed complaint told in one line."""
    given = {} if default is None else {"default": default}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                flags, prog=f"launch.py {command}", args=args, description=description, **given
            )
    except SystemExit as stop:
        if stop.code:
            words = re.sub(r"[─-╿]", " ", complaint.getvalue()).split()
            print(f"launch.py: {' '.join(words)}", file=sys.stderr)
        raise


def _parse_experiment(flags, command: str, args: list[str]):
    from experiments.catalog import EXPERIMENTS
    from train.config import SpecError

    name = args[0] if args else ""
    if name in ("-h", "--help", ""):
        names = ", ".join(EXPERIMENTS)
        if not name:
            raise SpecError(f"{command} needs the name of an experiment; there are: {names}")
        print(f"usage: launch.py {command} EXPERIMENT [flags]\n\nexperiments: {names}")
        print(f"flags of one: launch.py {command} EXPERIMENT --help")
        raise SystemExit(0)
    experiment = _experiment(name)
    unnamed = Annotated[flags, tyro.conf.arg(name="")]
    fields = [("study", OmitArgPrefixes[experiment.Options]), ("how", unnamed)]
    both = dataclasses.make_dataclass("Flags", fields)
    title = (experiment.__doc__ or name).splitlines()[0]
    default = both(_options_from(experiment, args[1:]), flags())
    parsed = _parse(both, f"{command} {name}", args[1:], title, default)
    return experiment, parsed.study, parsed.how


def _options_from(experiment, args: list[str]):
    """An experiment's defaults, with the named recipe's where the arguments name one."""
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("--recipe-from", "--recipe_from")
    known.add_argument("--out", default="out")
    found, _ = known.parse_known_args(args)
    options = experiment.Options()
    if found.recipe_from is None:
        return options
    from experiments import recipes
    from experiments.workspace import Workspace

    named = recipes.load(Workspace(Path(found.out)), found.recipe_from)
    return dataclasses.replace(options, recipe=named.recipe)


def _warn(found, flags, stage) -> None:
    """How far a plan lies outside of the range of the recipe that it starts from."""
    if flags.recipe_from is not None:
        from experiments import recipes

        for sentence in recipes.load(stage.workspace, flags.recipe_from).warnings(found):
            stage.say(sentence)


def list_(args: list[str]) -> None:
    """Experiments and sweeps."""
    flags = _parse(Common, "list", args)
    from experiments.catalog import EXPERIMENTS
    from experiments.workspace import Workspace

    for name, experiment in EXPERIMENTS.items():
        print(f"{name}: {(experiment.__doc__ or name).splitlines()[0]}")
    names = Workspace(flags.out).sweep_names()
    print(f"sweeps in {flags.out}: {', '.join(names) or 'none yet'}")


def plan(args: list[str]) -> None:
    """Every run with its exact cost."""
    experiment, options, flags = _parse_experiment(PlanFlags, "plan", args)
    from experiments import planning, stages
    from experiments.plan_report import plan_tables
    from experiments.workspace import write_json

    stage = _stage(flags.out)
    whole, corpus = stages.make_plan(experiment, options, stage)
    found = planning.planned(
        experiment, whole, corpus, stage.workspace, planning.Limits(flags.budget, flags.trim),
        n_workers=flags.workers, price_per_hour=flags.price_per_hour, topology=flags.topology,
    )  # fmt: skip
    stage.console.print(plan_tables(found, stage.console.width), highlight=False)
    for sentence in getattr(experiment, "notes", lambda options: ())(options):
        stage.say(sentence)
    _warn(found.plan, flags, stage)
    if flags.json:
        write_json(flags.json, found.to_json())
        print(f"wrote {flags.json}")


def run(args: list[str]) -> None:
    """Train what is missing, fit, predict, score, draw."""
    experiment, options, flags = _parse_experiment(RunFlags, "run", args)
    from train.runtime import configure

    configure(flags.out / "cache")
    from experiments import stages
    from experiments.planning import Limits

    stage = _stage(flags.out, flags.how, flags.retry_diverged)
    if flags.recipe_from is not None:
        _warn(stages.make_plan(experiment, options, stage)[0], flags, stage)
    stages.run(experiment, options, stage, limits=Limits(flags.budget, flags.trim))


def fit(args: list[str]) -> None:
    """All laws of a sweep; with --law, or for a CSV, one law."""
    from experiments import analyse

    flags = _parse(analyse.FitFlags, "fit", args)
    if flags.law or analyse.is_file(flags.table):
        _show(analyse.fit(flags), flags)
        return
    from train.runtime import configure

    configure(flags.out / "cache")
    from experiments import stages, summary
    from experiments.workspace import write_json
    from train.records import to_plain

    stage = _stage(flags.out)
    if stages.has_ending(flags.table, stage):
        found = stages.conclude(flags.table, stage)
        if flags.json:
            write_json(flags.json, to_plain(found.values))
            print(f"wrote {flags.json}")
        return
    study = stages.refit(flags.table, stage)
    stage.console.print(summary.fit_tables(study))
    if flags.json:
        write_json(flags.json, to_plain(study.to_json()))
        print(f"wrote {flags.json}")


def _answered(module: str, name: str, flags: str, args: list[str]) -> int:
    """A command of experiments.analyse or experiments.surveys; the exit code."""
    from importlib import import_module

    home = import_module(f"experiments.{module}")
    answer = getattr(home, name)
    parsed = _parse(getattr(home, flags), name, args, answer.__doc__)
    shown = answer(parsed)
    _show(shown, parsed)
    return shown.code


def _called(module: str, name: str, flags: str, command: str, args: list[str]) -> int:
    """A command whose module prints its answer itself; the exit code."""
    from importlib import import_module

    home = import_module(f"experiments.{module}")
    call = getattr(home, name)
    return call(_parse(getattr(home, flags), command, args, call.__doc__))


def _show(shown, flags) -> None:
    """Print an answer in the format asked for, and write it as JSON."""
    from experiments.printing import print_tables
    from experiments.workspace import write_json

    print_tables(shown.tables, shown.sentences, flags.format)
    if flags.json:
        write_json(flags.json, shown.values)
        print(f"wrote {flags.json}", file=sys.stdout if flags.format == "text" else sys.stderr)


def compare(args: list[str]) -> None:
    """An idea of one's own against the baseline."""
    from experiments.compare import CompareFlags, run

    flags = _parse(CompareFlags, "compare", args, "An idea of one's own against the baseline.")
    from train.runtime import configure, confine_to_one_core, has_accelerator

    configure(flags.out / "cache")
    if not has_accelerator():
        confine_to_one_core()  # its steps are timed here as they run in a worker
    from experiments.printing import print_tables

    print_tables(*run(flags, _stage(flags.out, flags.how)), "text")


def figures(args: list[str]) -> None:
    """Draw a sweep's figures and report again, or the figures named alone."""
    from experiments import picturing

    flags = _parse(picturing.FiguresFlags, "figures", args)
    from train.runtime import configure

    configure(flags.out / "cache")
    from experiments import stages, summary

    stage = _stage(flags.out)
    has_ending = stages.has_ending(flags.sweep, stage)
    if not picturing.is_choice(flags):
        folder = stages.redraw(flags.sweep, stage, flags.formats)
        if not has_ending:
            stage.say(summary.where(folder))
    elif has_ending:
        picturing.of_ending(flags, stage)
    else:
        picturing.figures(flags, stage)


def report(args: list[str]) -> None:
    """Write a sweep's page again, or a page that compares two sweeps."""
    from experiments import reporting

    flags = _parse(reporting.ReportFlags, "report", args, reporting.report.__doc__)
    from train.runtime import configure

    configure(flags.out / "cache")
    reporting.report(flags, _stage(flags.out))


def inspect(args: list[str]) -> None:
    """Pictures of a trained run from the inside."""
    from experiments import picturing

    flags = _parse(picturing.InspectFlags, "inspect", args)
    from train.runtime import configure

    configure(flags.out / "cache")
    for path in picturing.inspect(flags):
        print(path)


COMMANDS = {
    "list": list_, "plan": plan, "run": run, "fit": fit,
    "figures": figures, "report": report, "inspect": inspect,
    "compare": compare,
    "check": partial(_answered, "analyse", "check", "TableFlags"),
    "approaches": partial(_answered, "surveys", "approaches", "SurveyFlags"),
    "validate": partial(_answered, "surveys", "validate", "SurveyFlags"),
    "gain": partial(_answered, "surveys", "gain", "GainFlags"),
    "conventions": partial(_answered, "surveys", "conventions", "TableFlags"),
    "final": partial(_answered, "surveys", "final", "FinalFlags"),
    "evaluate": partial(_answered, "evaluating", "evaluate", "EvaluateFlags"),
    "tasks": partial(_answered, "tasks", "tasks", "TaskFlags"),
    "sample": partial(_called, "asking", "sample", "SampleFlags", "sample"),
    "export": partial(_called, "exporting", "export", "ExportFlags", "export"),
    "status": partial(_called, "status_view", "show", "StatusFlags", "status"),
    "table": partial(_called, "table", "show", "TableFlags", "table"),
    "cancel": partial(_called, "halting", "cancel", "HaltFlags", "cancel"),
    "retry": partial(_called, "halting", "retry", "HaltFlags", "retry"),
    "data": partial(_called, "data_view", "data", "DataFlags", "data"),
    "results": partial(_called, "results", "results", "ResultsFlags", "results"),
    "ngrams": partial(_answered, "baselines", "ngrams", "NgramFlags"),
    "train": partial(_called, "large", "train_large", "LargeFlags", "train"),
    "aot": partial(_answered, "aot", "aot", "AotFlags"),
    "reproduce": partial(_answered, "analyse", "reproduce", "ReproduceFlags"),
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code.

    1: runs failed, or the machine would not go on; 2: wrong input; 130: Ctrl-C.
    """
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help"):
        print(HELP)
        return 0 if args else 2
    if args[0] not in COMMANDS:
        print(f"launch.py: no command {args[0]!r}; use {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    from experiments.executors.failures import RunsFailed, describe, describe_os_error
    from experiments.halting import Cancelled

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return COMMANDS[args[0]](args[1:]) or 0
    except ValueError as error:  # SpecError, RecordError, CorpusError: input, not a bug
        print(f"launch.py: {error}", file=sys.stderr)
        return 2
    except RunsFailed as failed:
        print("\n".join(describe(failed)), file=sys.stderr)
        return 1
    except Cancelled as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"launch.py: {describe_os_error(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nstopped; finished runs and checkpoints are kept, the same command goes on from here",
            file=sys.stderr,
        )
        return 130


if __name__ == "__main__":
    sys.exit(main())
