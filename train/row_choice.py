"""In how many rows a shape is trained, chosen by measuring on the device that trains it."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from train.config import RunSpec
from train.data.corpora import TokenizedCorpus
from train.inputs import STEPS_PER_DISPATCH, training_windows
from train.loop import Dispatch, next_dispatch
from train.placement import as_placement
from train.records import write_atomically
from train.rows import compute
from train.start import fresh_state

MAX_ROWS = 16
MIN_GAIN = 1.1
"""Tokens a second by which twice the rows must gain to be taken."""
N_TIMED = 3
"""Dispatches that are timed, after one that compiles."""


def choose_rows(rate_of: Callable[[int], float], n_max: int) -> int:
    """The number of rows, doubled from 1 for as long as that gains MIN_GAIN, to n_max or MAX_ROWS.

    Args:
        rate_of: tokens a second in so many rows; 0 where they do not fit.
    """
    n_rows = 1
    while 2 * n_rows <= min(n_max, MAX_ROWS):
        if rate_of(2 * n_rows) < MIN_GAIN * rate_of(n_rows):
            break
        n_rows *= 2
    return n_rows


def measured_rows(
    spec: RunSpec, device: Any, n_max: int, *, corpus: TokenizedCorpus, cache: Path
) -> int:
    """choose_rows by rates that are measured once for a kind of device and shape.

    Args:
        cache: JSON file of the rates; one that is missing or damaged is made anew.
    """
    known = _read(cache)
    shape = hashlib.sha256(repr(spec.compile_key).encode()).hexdigest()[:16]
    rates = known.setdefault(f"{device.device_kind} {shape}", {})

    def rate_of(n_rows: int) -> float:
        if str(n_rows) not in rates:
            rates[str(n_rows)] = tokens_per_s(spec, device, n_rows, corpus)
            cache.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cache, json.dumps(known, indent=1))
        return rates[str(n_rows)]

    return choose_rows(rate_of, n_max)


def tokens_per_s(spec: RunSpec, device: Any, n_rows: int, corpus: TokenizedCorpus) -> float:
    """Training tokens a second of a spec's first steps in so many rows; 0 where they do not fit."""
    try:
        dispatches = _after([_opening(spec, device, corpus) for _ in range(n_rows)])
        started = time.perf_counter()
        for _ in range(N_TIMED):
            dispatches = _after(dispatches)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return 0.0
    n_tokens = N_TIMED * STEPS_PER_DISPATCH * n_rows * spec.batch_tokens
    return n_tokens / (time.perf_counter() - started)


def _opening(spec: RunSpec, device: Any, corpus: TokenizedCorpus) -> Dispatch:
    windows = training_windows(spec, corpus)
    state = jax.device_put(fresh_state(spec), device)
    return next_dispatch(spec, corpus, windows, as_placement(device), state, 0, STEPS_PER_DISPATCH)


def _after(dispatches: list[Dispatch]) -> list[Dispatch]:
    results = jax.block_until_ready(compute(dispatches))
    pairs = zip(dispatches, results, strict=True)
    return [dispatch._replace(state=state) for dispatch, (state, _) in pairs]


def _read(cache: Path) -> dict[str, dict[str, float]]:
    try:
        return json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
