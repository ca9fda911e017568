"""A step compiled for a slice that is not there, and what is said of it."""

import dataclasses
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from experiments.aot import aot_spec, bound_of, find_model
from experiments.chips import CHIPS, Bound, chip_of, of_slice
from model.accounting import count_params, train_flops_per_token
from train.config import SpecError

ROOT = Path(__file__).resolve().parents[2]


def test_a_model_is_found_by_name_or_by_size():
    assert find_model("gpt2-124m").name == "gpt2-124m"
    assert find_model("chinchilla-1b").name == "chinchilla-1018m"
    assert find_model("chinchilla-8b").name == "chinchilla-9293m"
    for unknown in ("llama-7b", "chinchilla", "chinchilla-big"):
        with pytest.raises(SpecError, match=f"model='{unknown}'"):
            find_model(unknown)


def test_an_unknown_chip_is_refused():
    assert chip_of("v5e:4x4").flops_per_s == 197e12
    with pytest.raises(SpecError, match="topology='h100:8'"):
        chip_of("h100:8")


def test_a_plan_on_a_slice_is_bounded_by_its_longest_run_and_by_all_of_them():
    spec = aot_spec(find_model("small-4x80").model, 8, "bfloat16")
    seeds = [dataclasses.replace(spec, seed_init=seed) for seed in range(4)]
    seconds = train_flops_per_token(spec.model, "matmul_full") * spec.n_tokens / 197e12
    one, four = of_slice(seeds[:1], "v5e:2x2", None), of_slice(seeds, "v5e:2x2", 3.0)
    assert one.hours == pytest.approx(seconds / 3600) == pytest.approx(one.chip_hours)
    assert four.hours == pytest.approx(one.hours) and four.price == pytest.approx(3 * one.hours)
    assert four.chip_hours == pytest.approx(4 * one.hours)


def test_a_run_larger_than_a_slice_is_refused():
    spec = aot_spec(find_model("chinchilla-16183m").model, 64, "bfloat16")
    with pytest.raises(SpecError, match="topology=v5e:2x2 have 64 GB"):
        of_slice([spec], "v5e:2x2", None)
    with pytest.raises(SpecError, match="topology='v5e'"):
        of_slice([spec], "v5e", None)


def test_the_slowest_part_is_the_bound():
    bound = Bound(1.0, 3.0, 2.0)
    assert (bound.seconds, bound.limit) == (3.0, "memory")


def test_a_step_takes_the_time_of_its_parts():
    from train.aot import CompiledStep
    from train.hlo import Collective

    chip = dataclasses.replace(
        CHIPS["v5e"], flops_per_s=100.0, memory_bytes_per_s=10.0, link_bytes_per_s=5.0
    )
    sent = (Collective("all-gather", 4, 3, 20),)
    step = CompiledStep(70, 30, 1, 900, 100, sent, 0.0)
    assert bound_of(step, chip) == Bound(10.0, 20.0, 12.0)
    assert bound_of(step, chip, devices_a_chip=2) == Bound(20.0, 40.0, 24.0)
    assert step.peak_bytes == 101


def test_the_compiler_is_asked_for(told):
    if find_spec("libtpu"):
        pytest.skip("libtpu is installed")
    code, _, complaint = told("aot", "--topology", "v5e:2x2", "--model", "gpt2-124m")
    assert code == 2 and "make tpu-aot" in complaint


@pytest.mark.slow
@pytest.mark.skipif(find_spec("libtpu") is None, reason="needs libtpu (make tpu-aot)")
def test_a_real_step_compiles_for_a_real_slice(tmp_path):
    """Splash attention within; products are what accounting says, recomputed ones once more."""
    path = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, "launch.py", "aot", "--topology", "v5e:2x2", "--model",
         "chinchilla-44m", "--batch-size", "8", "--json", str(path)],
        cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found, rung = json.loads(path.read_text()), find_model("chinchilla-44m")
    cfg, n_tokens = rung.model, 8 * rung.model.seq_len // 4
    attention = 3 * 4 * cfg.n_layers * cfg.d_attn * cfg.seq_len
    products = train_flops_per_token(cfg, "matmul_full") - attention
    # A layer is computed again for its backward pass, but for its last product.
    again = 2 * (count_params(cfg).non_embedding - cfg.n_layers * cfg.d_ff * cfg.d_model)
    assert found["product_flops"] == pytest.approx(n_tokens * (products + again), rel=1e-3)
    assert found["attention_flops"] > 0
    assert 12 * found["n_params_total"] / 4 < found["argument_bytes"] < 2e8
    assert found["peak_bytes"] < found["memory_bytes"]


def test_a_spec_for_compiling_is_a_whole_spec():
    spec = aot_spec(find_model("gpt2-124m").model, 8, "bfloat16")
    assert spec.dtype == "bfloat16" and spec.run_id
