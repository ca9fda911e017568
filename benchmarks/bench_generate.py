"""Generation with kept keys and values against a full forward pass for every token.

Both draw the same tokens from the same weights at the same seed, which is checked. The context is
no longer than prompt and continuation need, so a full pass has no padding that it could do without
but that of a window of one length; passes over windows that grow would do half of its work at best.
Every full pass costs the same, so that 32 of them tell what 256 cost. Printed are medians of rounds
that alternate in one process, of the time on the clock and of processor time, which other work on
the machine disturbs less.

    python benchmarks/bench_generate.py [--rounds 3] [--gpt2]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

N_PROMPT, N_NEW, N_FULL = 64, 256, 32


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpt2", action="store_true", help="also GPT-2's smallest shape")
    flags = parser.parse_args()

    import dataclasses

    from model.config import ModelConfig
    from model.ladders import LADDERS

    seq_len = N_PROMPT + N_NEW
    print(f"{N_NEW} new tokens after {N_PROMPT}, one prompt")
    for n_layers, d_model in ((4, 80), (6, 256)):
        cfg = ModelConfig(
            n_layers, d_model, d_model // 16, 16, 4 * d_model, vocab_size=256, seq_len=seq_len
        )
        report(f"{n_layers}x{d_model}, bytes", cfg, flags.rounds)
    if flags.gpt2:
        cfg = dataclasses.replace(LADDERS["gpt2"][0].model, seq_len=seq_len)
        report("gpt2-124m shape", cfg, flags.rounds)


def report(name: str, cfg, rounds: int) -> None:
    """Time both ways and print what a token takes, and the ratios."""
    import numpy as np

    from model.functional import init_params
    from model.sampling import Draws, generated

    params = init_params(cfg, 0)
    prompt = np.random.default_rng(0).integers(0, cfg.vocab_size, N_PROMPT)

    def a_token(n_tokens: int, is_cached: bool) -> tuple[np.ndarray, list]:
        started = np.array([time.perf_counter(), time.process_time()])
        found = list(
            generated(cfg, params, [prompt], n_tokens=n_tokens, draws=Draws(), is_cached=is_cached)
        )
        ended = np.array([time.perf_counter(), time.process_time()])
        return 1e3 * (ended - started) / n_tokens, found

    a_token(N_NEW, is_cached=True)
    a_token(2, is_cached=False)
    kept, full = [], []
    for _ in range(rounds):
        ms, tokens = a_token(N_NEW, is_cached=True)
        kept.append(ms)
        ms, expected = a_token(N_FULL, is_cached=False)
        full.append(ms)
        assert tokens[:N_FULL] == expected, "the two ways differ"
    fast, slow = np.median(kept, axis=0), np.median(full, axis=0)
    ratio = np.median(np.array(full) / np.array(kept), axis=0)
    print(
        f"{name:16} kept {fast[0]:7.2f} ms/token, full {slow[0]:8.2f}, {ratio[0]:5.1f}x;   "
        f"processor {fast[1]:7.2f}, {slow[1]:8.2f}, {ratio[1]:5.1f}x",
        flush=True,
    )


if __name__ == "__main__":
    main()
