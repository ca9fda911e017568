"""`launch.py compare`, from a file to a verdict."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from experiments import compare
from experiments.compare import GRIDS, CompareFlags, Grid
from experiments.comparison import Timing, compared, verdict
from experiments.ideas import Idea, OwnParts, adopt, adopt_all
from experiments.recipe import Size
from model import custom
from model.accounting import train_flops
from train.config import SpecError

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "my_idea.py"
TINY = ("--scale", "smoke", "--recipe.seq-len", 16, "--recipe.batch-size", 4)


@pytest.fixture
def idea_file(tmp_path):
    path = tmp_path / "files" / "own.py"
    path.parent.mkdir()
    path.write_text(
        "from model.transformer import MLP\n\n"
        "class Twice(MLP):\n    def __call__(self, x):\n        return super().__call__(2 * x)\n\n"
        "class Early(MLP):\n    def __call__(self, x):\n"
        "        return super().__call__(x[:, ::-1])\n\n"
        "class Long(MLP):\n    def __call__(self, x):\n        y = super().__call__(x)\n"
        "        return y + super().__call__(y)\n\n"
        "def loss(logits, targets):\n    return (logits**2).mean()\n"
    )
    return path


@pytest.fixture
def planned(corpus, idea_file, tmp_path):
    """The pairs of the laptop grid for an MLP of the file."""

    def planned(name, factors=(1.0, 1.0), **flags):
        own = OwnParts(mlp=adopt("model.mlp", f"{idea_file}:{name}", tmp_path / "ideas"))
        return compare._pairs(CompareFlags(**flags), Idea(own), corpus, factors)

    return planned


def test_pairs_share_seeds_recipe_and_compute(planned):
    pairs = planned("Long", seed=7)
    assert len(pairs) == 14 and len({p.cell for p in pairs}) == 12
    assert [p.baseline.seed_init for p in pairs] == list(range(7, 21))
    for pair in pairs:
        old, new = pair.baseline, pair.new
        assert (old.seed_init, old.seed_data) == (new.seed_init, new.seed_data)
        assert (old.optimizer, old.batch_size) == (new.optimizer, new.batch_size)
        assert new.n_tokens < old.n_tokens, "the idea costs more a token"
        for spec in (old, new):
            spent = train_flops(spec.model, spec.n_tokens, "matmul_full")
            assert spent == pytest.approx(pair.flops, rel=0.01)
            assert spec.n_steps >= 600
    assert len({p.new.run_id for p in pairs} | {p.baseline.run_id for p in pairs}) == 28


def test_learning_rates_of_both_sides_take_their_factors(planned):
    plain, scaled = planned("Twice"), planned("Twice", (0.5, 2.0))
    for one, other in zip(plain, scaled, strict=True):
        assert other.baseline.optimizer.lr == pytest.approx(0.5 * one.baseline.optimizer.lr)
        assert other.new.optimizer.lr == pytest.approx(2 * one.new.optimizer.lr)


def fake_rows(pairs, gain, diverged=()):
    """Losses on a law in (FLOPs per token, D), the idea's with `gain` times the compute."""
    rows = {}
    for i, pair in enumerate(pairs):
        noise = 1 + 0.01 * np.sin(9.0 * i)
        for spec, factor in ((pair.baseline, 1.0), (pair.new, gain)):
            n = train_flops(spec.model, 1, "matmul_full") / 6 * factor**0.5
            loss = 0.8 + 30 / n**0.4 + 60 / (spec.n_tokens * factor**0.5) ** 0.3
            is_lost = spec.run_id in diverged
            rows[spec.run_id] = {
                "status": "diverged" if is_lost else "finished",
                "loss_nats": None if is_lost else loss * noise,
            }
    return rows


def timing(ratio):
    return (Timing(Size(2, 24), np.array([[1.0, ratio], [2.0, 2 * ratio], [1.0, ratio]])),)


def test_a_planted_gain_is_told_in_flops_and_in_seconds(planned):
    pairs = planned("Twice")
    result = compared(pairs, fake_rows(pairs, 1.3), timing(1.1))
    assert result.gain.ratio == pytest.approx(1.3, rel=0.02)
    assert result.seconds_factor == pytest.approx(1.1)
    words = verdict(result)
    assert re.match(r"a gain: .* x1.(29|3) \[.*FLOPs and x1.1[78] \[.*seconds", words), words
    assert verdict(compared(pairs, fake_rows(pairs, 0.8), timing(1.0))).startswith("a loss: ")
    same = verdict(compared(pairs, fake_rows(pairs, 1.0), timing(1.0)))
    assert same.startswith("no gain shown (the interval holds 1): ")
    slow = verdict(compared(pairs, fake_rows(pairs, 1.3), timing(1.3)))
    assert slow.startswith("a gain in FLOPs, no gain shown (the interval holds 1) in seconds: ")


def test_diverged_runs_are_named_and_left_out(planned):
    pairs = planned("Twice")
    lost = pairs[0].new.run_id
    result = compared(pairs, fake_rows(pairs, 1.2, {lost}), timing(1.0))
    assert result.lost == ("1x16 at 1.3e+11 FLOPs, idea: diverged",)
    assert len(result.baseline) == len(result.new) == 13
    assert result.gain.ratio == pytest.approx(1.2, rel=0.02)
    nothing = compared(pairs, fake_rows(pairs, 1.2, {p.new.run_id for p in pairs}), timing(1.0))
    assert verdict(nothing).startswith("no gain can be stated")


def test_a_file_is_kept_by_its_content(idea_file, tmp_path):
    folder = tmp_path / "ideas"
    reference = adopt("loss", f"{idea_file}:loss", folder)
    digest = custom.digest(idea_file.read_bytes())
    assert reference == f"own.py:loss@{digest}"
    assert (folder / f"{digest}.py").read_bytes() == idea_file.read_bytes()
    assert adopt("loss", f"{idea_file}:loss", folder) == reference
    idea_file.write_text(idea_file.read_text() + "# changed\n")
    assert adopt("loss", f"{idea_file}:loss", folder) != reference
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("own.py", "names no part; write FILE.py:NAME"),
        ("nowhere/own.py:Block", "nowhere/own.py cannot be read"),
        ("{file}:Nothing", "own.py defines no 'Nothing'; it defines Twice, Early, Long, loss"),
        ("{file}:" + "N" * 70, "has 70 characters"),
        ("{file}:__name__", "cannot be called"),
    ],
)
def test_what_names_no_part_is_told_in_a_line(idea_file, tmp_path, text, words):
    with pytest.raises(ValueError, match=words) as caught:
        adopt("model.block", text.format(file=idea_file), tmp_path / "ideas")
    assert "\n" not in str(caught.value)


def test_an_idea_is_needed(tmp_path):
    with pytest.raises(SpecError, match="--model.block FILE.py:NAME, .*--optimizer FILE.py:NAME"):
        adopt_all(OwnParts(), None, None, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "compare needs an idea"),
        (("--model.block", "none.py:Block"), "none.py cannot be read"),
        (("--model.mlp", "{file}:Early"), "mlp=own.py:Early@.* is not causal"),
        (("--model.mlp", "{file}:Twice", "--lr-factors", "0"), "must be positive"),
        (("--loss", "{file}:loss", "--recipe.d-head", "3"), "not divisible by recipe.d_head=3"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(told, idea_file, tmp_path, arguments, words):
    given = [str(a).format(file=idea_file) for a in arguments]
    code, _, err = told("compare", *given, *TINY, "--out", tmp_path / "out")
    assert code == 2 and err.count("\n") == 1
    assert re.search(words, err), err


@pytest.mark.slow
def test_an_idea_from_its_file_to_the_verdict(told, tmp_path, monkeypatch):
    """The example of the docs, on the smoke grid's smaller size and shorter."""
    grid = Grid(tuple((c, (Size(1, 8),)) for c in (2e8, 4e8)), (2e8, Size(1, 8)), n_seeds=2)
    monkeypatch.setitem(GRIDS, "smoke", grid)
    out = tmp_path / "out"
    command = ("compare", "--model.block", f"{EXAMPLE}:Block", *TINY, "--out", out)
    code, shown, err = told(*command, "--lr-factors", 1, 2)
    assert (code, err) == (0, "")
    assert "my_idea.py:Block@" in shown and "built, causal, finite" in shown
    assert shown.count("is taken") == 2 and "no gain can be stated" in shown
    (home,) = (out / "compare").iterdir()
    found = json.loads((home / "compare.json").read_text())
    assert len(found["pairs"]) == 3 and found["verdict"] in (home / "report.md").read_text()
    assert (home / "figures" / "gain.png").exists()
    losses = [(p["loss_nats_baseline"], p["loss_nats_new"]) for p in found["pairs"]]
    assert all(1 < loss < 6 for pair in losses for loss in pair)
    run_id = found["pairs"][0]["run_id_new"]
    assert told("sample", run_id, "--tokens", 3, "--out", out)[0] == 0
    code, again, _ = told(*command, "--lr-factors", 1, 2)
    assert code == 0 and "training" not in again
