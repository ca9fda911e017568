"""What input costs a step: a model of 1M parameters, and batches by each of the three ways.

    inline   gathered on the host between two dispatches, as the trainer does
    grain    host_batches: Grain's threads gather ahead of time
    device   tokens on the device, gathered inside the compiled code

Printed is the wait for a batch as a share of the time of a step, on this machine.

    python benchmarks/bench_input.py [--steps 320] [--megabytes 64]
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

STEPS_PER_DISPATCH = 16
N_ROUNDS = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--megabytes", type=int, default=64)
    flags = parser.parse_args()

    import numpy as np

    from train.data.batches import n_windows
    from train.data.feeding import BatchOrder

    tokens = np.random.default_rng(0).integers(1, 256, flags.megabytes << 20, np.uint8)
    seq_len, batch_size = 128, 32
    total = n_windows(len(tokens), seq_len)
    order = BatchOrder(batch_size, total, total, 0, seq_len)
    step_s = seconds_of_a_step(order)
    print(f"a step of 32 x 128 tokens at 1.0M parameters: {1e3 * step_s:.1f} ms")
    waits = {"inline": inline, "grain": grained, "device": on_device}
    for name, wait in waits.items():
        rounds = [wait(tokens, order, flags.steps, step_s) for _ in range(N_ROUNDS)]
        share = statistics.median(rounds) / step_s
        print(f"{name:7} {1e6 * statistics.median(rounds):8.1f} us a step, {share:7.3%} of it")


def seconds_of_a_step(order) -> float:
    """Median time of a training step of a model of 1M parameters."""
    import jax
    import numpy as np

    from model.config import ModelConfig
    from model.functional import init_params
    from model.kernels import kernels_for
    from train.config import OptimizerConfig
    from train.optimizer import hyperparameters, init_moments
    from train.parts import microbatches
    from train.step import TrainState, train_steps

    cfg = ModelConfig(
        n_layers=5, d_model=128, n_heads=4, d_head=32, d_ff=512, vocab_size=256,
        seq_len=order.seq_len,
    )  # fmt: skip
    hyper, params = hyperparameters(OptimizerConfig(lr=1e-3)), init_params(cfg, 0)
    device = jax.devices()[0]
    state = jax.device_put(TrainState(params, init_moments(params, hyper)), device)
    windows = np.ones((4, order.batch_size, order.seq_len + 1), np.int32)
    parts = microbatches(cfg.seq_len, order.batch_size, device.platform)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        state, metrics = train_steps(
            cfg, kernels_for(device.platform), "standard", parts, state, windows,
            np.full(4, 1e-3, np.float32), np.int32(4), hyper,
        )  # fmt: skip
        np.asarray(metrics.loss_nats)
        times.append((time.perf_counter() - started) / 4)
    return statistics.median(times[1:])


def inline(tokens, order, n_steps: int, step_s: float) -> float:
    """Seconds a step that the trainer's own gather takes."""
    import numpy as np

    from train.data.batches import gather

    started = time.perf_counter()
    for first in range(0, n_steps, STEPS_PER_DISPATCH):
        steps = np.arange(first, first + STEPS_PER_DISPATCH)
        gather(tokens, order.window_ids(steps), order.seq_len)
    return (time.perf_counter() - started) / n_steps


def grained(tokens, order, n_steps: int, step_s: float) -> float:
    """Seconds a step that one waits for Grain, which gathers while the step is computed."""
    from train.data.feeding import host_batches

    batches, waited = host_batches(tokens, order), 0.0
    next(batches)
    n_steps = min(n_steps, 100)
    for _ in range(n_steps):
        time.sleep(min(step_s, 0.02))
        started = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - started
    return waited / n_steps


def on_device(tokens, order, n_steps: int, step_s: float) -> float:
    """Seconds a step of the indices on the host and the gather on the device."""
    import jax
    import numpy as np

    from train.data.feeding import gather_on_device, place_on_device

    resident = place_on_device(tokens, jax.devices()[0])

    @jax.jit
    def scanned(tokens, ids_KB):
        def gathered(total, ids):
            return total + gather_on_device(tokens, ids, order.seq_len).sum(), None

        return jax.lax.scan(gathered, np.int32(0), ids_KB)[0]

    def dispatch(first: int) -> None:
        steps = np.arange(first, first + STEPS_PER_DISPATCH)
        jax.block_until_ready(scanned(resident, order.window_ids(steps).astype(np.int32)))

    dispatch(0)
    started = time.perf_counter()
    for first in range(0, n_steps, STEPS_PER_DISPATCH):
        dispatch(first)
    return (time.perf_counter() - started) / n_steps


if __name__ == "__main__":
    main()
