"""A finished run in Hugging Face's layout."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from experiments.sampling import load_run
from experiments.workspace import Workspace
from model import pretrained
from train.config import SpecError
from train.data.tokenizer_files import write_tokenizer


@dataclass(frozen=True)
class ExportFlags:
    """Which run, and where to."""

    run: Positional[str]
    """run_id (or its beginning) of a finished run; `largest` takes the one of most compute."""
    folder: Positional[Path]
    """Folder to write, which must not exist."""
    out: Path = Path("out")
    """Folder of corpora, runs and sweeps."""


def export(flags: ExportFlags) -> int:
    """Write a run's weights, config and tokenizer so that transformers loads them."""
    run = load_run(Workspace(flags.out), flags.run)
    if flags.folder.exists():
        raise SpecError(f"folder={flags.folder} exists; name one that does not")
    pretrained.architecture(run.model)
    tokenizer = run.text_tokenizer
    unfinished = flags.folder.with_name(f".{flags.folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    form = pretrained.save(unfinished, run.model, run.params, run.parametrization, tokenizer.eot_id)
    write_tokenizer(tokenizer, unfinished, run.model.seq_len)
    unfinished.rename(flags.folder)
    print(f"wrote {flags.folder}: a {form.name} of {run.model.n_layers} layers")
    return 0
