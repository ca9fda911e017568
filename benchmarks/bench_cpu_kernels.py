"""Is a training step faster with the CPU kernels than with the plain ones, and by how much?

    python benchmarks/bench_cpu_kernels.py

Steps of both run side by side in one process with one XLA thread, in turns, so that a slow
moment of the machine meets both; the ratio is the median over pairs. Each dispatch is a scan of
value, gradient and a plain gradient step over 8 batches of 8 windows of 64 bytes.
"""

import os
import sys
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NPROC"] = "1"  # the size of XLA's thread pool, read when jax is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from model.config import ModelConfig  # noqa: E402
from model.functional import features, init_params  # noqa: E402
from model.kernels import CPU, PLAIN, Kernels  # noqa: E402

N_ROUNDS, N_STEPS, BATCH_SIZE = 40, 8, 8


def trainer(cfg: ModelConfig, kernels: Kernels):
    def loss(params, window_BT):
        x_BTD, w_VD = features(cfg, params, window_BT[:, :-1], kernels=kernels)
        targets_N = window_BT[:, 1:].reshape(-1)
        return kernels.cross_entropy(x_BTD.reshape(-1, cfg.d_model), w_VD, targets_N)

    def step(params, window_BT):
        value, gradients = jax.value_and_grad(loss)(params, window_BT)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradients), value

    return jax.jit(lambda params, windows: jax.lax.scan(step, params, windows), donate_argnums=0)


def measure(n_layers: int, d_model: int) -> None:
    cfg = ModelConfig(n_layers, d_model, d_model // 8, 8, 4 * d_model, 256, 64)
    shape = (N_STEPS, BATCH_SIZE, cfg.seq_len + 1)
    windows = jnp.asarray(np.random.default_rng(0).integers(0, cfg.vocab_size, shape, np.int32))
    seconds = {"plain": [], "cpu": []}
    trainers = {kernels.name: trainer(cfg, kernels) for kernels in (PLAIN, CPU)}
    params = {name: jax.tree.map(jnp.asarray, init_params(cfg, 0)) for name in trainers}
    for _ in range(N_ROUNDS + 1):
        for name, train in trainers.items():
            start = time.perf_counter()
            params[name], _ = jax.block_until_ready(train(params[name], windows))
            seconds[name].append((time.perf_counter() - start) / N_STEPS)
    plain, cpu = (np.array(seconds[name][1:]) for name in ("plain", "cpu"))  # first: compilation
    print(
        f"n_layers={n_layers} d_model={d_model}: plain {1e3 * np.median(plain):.2f} ms a step, "
        f"cpu {1e3 * np.median(cpu):.2f} ms, plain/cpu {np.median(plain / cpu):.2f}",
        flush=True,
    )


if __name__ == "__main__":
    for n_layers, d_model in ((1, 16), (3, 40), (4, 64)):
        measure(n_layers, d_model)
