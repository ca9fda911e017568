"""Generation with kept keys and values against a full forward pass for every token.

A full pass is given every advantage: it is compiled for the length that a text has, without padding
(compiling is not counted), in the form that is fastest on this device, and its head computes the
last position alone. It is timed at five lengths from the prompt's to the last one; the trapezoids
between them are what a token costs on average. That kept keys give the tokens of full passes is
checked besides. Printed are medians of rounds that alternate in one process, of the time on the
clock and of processor time, which other work on the machine disturbs less.

    python benchmarks/bench_generate.py [--prompts 1 8] [--rounds 3] [--gpt2]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

N_PROMPT, N_NEW, N_CHECKED = 64, 256, 8
LENGTHS = (64, 128, 192, 256, 319)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=(1, 8), help="in a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpt2", action="store_true", help="also GPT-2's smallest shape")
    flags = parser.parse_args()

    import dataclasses

    from model.config import ModelConfig
    from model.ladders import LADDERS

    seq_len = N_PROMPT + N_NEW
    print(f"{N_NEW} new tokens after {N_PROMPT} for each prompt; ms a pass")
    for n_layers, d_model, n_heads in ((4, 80, 5), (6, 256, 16), (8, 320, 5)):
        cfg = ModelConfig(
            n_layers, d_model, n_heads, d_model // n_heads, 4 * d_model, 256, seq_len=seq_len
        )
        for n in flags.prompts:
            report(f"{n_layers}x{d_model}, bytes, {n} prompts", cfg, flags.rounds, n)
    if flags.gpt2:
        cfg = dataclasses.replace(LADDERS["gpt2"][0].model, seq_len=seq_len)
        for n in flags.prompts:
            report(f"gpt2-124m shape, {n} prompts", cfg, flags.rounds, n)


def report(name: str, cfg, rounds: int, n_prompts: int) -> None:
    """Time both ways and print what a token of every prompt takes, and the ratios."""
    import jax
    import numpy as np

    from model.functional import init_params
    from model.sampling import generated

    params = jax.device_put(init_params(cfg, 0))
    tokens_BT = np.random.default_rng(0).integers(0, cfg.vocab_size, (n_prompts, cfg.seq_len))
    prompts, passed = tokens_BT[:, :N_PROMPT], full_pass(cfg)

    def drawn(n_tokens: int, is_cached: bool) -> list:
        return list(generated(cfg, params, prompts, n_tokens=n_tokens, is_cached=is_cached))

    def kept() -> np.ndarray:
        return timed(lambda: drawn(N_NEW, True)) / N_NEW

    def full() -> np.ndarray:
        passes = [timed(lambda n=n: np.asarray(passed(params, tokens_BT[:, :n]))) for n in LENGTHS]
        return np.trapezoid(passes, LENGTHS, axis=0) / (LENGTHS[-1] - LENGTHS[0])

    assert drawn(N_NEW, True)[:N_CHECKED] == drawn(N_CHECKED, False), "the two ways differ"
    full()
    rows = np.array([(kept(), full()) for _ in range(rounds)])
    (fast, slow), ratio = np.median(rows, axis=0), np.median(rows[:, 1] / rows[:, 0], axis=0)
    print(
        f"{name:28} kept {fast[0]:7.2f}, full {slow[0]:8.2f}: {ratio[0]:5.1f}x;   "
        f"processor {fast[1]:7.2f}, {slow[1]:8.2f}: {ratio[1]:5.1f}x",
        flush=True,
    )


def full_pass(cfg):
    """Logits after a text, as a compiled function of parameters and tokens."""
    import jax

    from model.functional import features
    from model.kernels import kernels_for

    @jax.jit
    def passed(params, tokens_BT):
        kernels = kernels_for(jax.default_backend())
        x_BTD, w_VD = features(cfg, params, tokens_BT, kernels=kernels)
        return x_BTD[:, -1] @ w_VD.T

    return passed


def timed(work):
    """Milliseconds on the clock and of processor time."""
    import numpy as np

    started = np.array([time.perf_counter(), time.process_time()])
    work()
    return 1e3 * (np.array([time.perf_counter(), time.process_time()]) - started)


if __name__ == "__main__":
    main()
