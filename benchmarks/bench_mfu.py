"""Model-FLOP utilisation of the training step on the device at hand, an accelerator or a CPU.

    python benchmarks/bench_mfu.py [--sizes 4x256 12x768] [--seconds 3]

For every size: tokens/s, FLOP/s of the model (matmul_full), its share of a float32 matrix product's
rate measured beside it, and of the chip's published peak where that is known (dense bfloat16, which
float32 training cannot reach: it is the usual yardstick, not a bound that applies here).
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PEAK_FLOPS = {  # dense bfloat16, from the makers' data sheets; by the beginning of device_kind
    "NVIDIA A100": 312e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12,
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5": 459e12, "TPU v6 lite": 918e12,
}  # fmt: skip


def _rate(call, work: float, seconds: float) -> float:
    """Work per second of repeated calls, the first left out."""
    call()
    n, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        call()
        n += 1
    return n * work / elapsed


def _trainer(cfg, batch_size: int, n_steps: int, device):
    import jax
    import numpy as np

    from model.functional import init_params
    from model.kernels import kernels_for
    from train.config import OptimizerConfig
    from train.optimizer import hyperparameters, init_moments
    from train.parts import microbatches
    from train.step import TrainState, train_steps

    hyper = hyperparameters(OptimizerConfig(lr=1e-4))
    params = init_params(cfg, 0)
    state = jax.device_put(TrainState(params, init_moments(params, hyper)), device)
    shape = (n_steps, batch_size, cfg.seq_len + 1)
    batches = np.random.default_rng(0).integers(0, cfg.vocab_size, shape, np.int32)
    rates, n = np.full(n_steps, 1e-4, np.float32), np.int32(n_steps)
    parts = microbatches(cfg.seq_len, batch_size, device.platform)
    kernels = kernels_for(device.platform)

    def dispatch() -> None:
        nonlocal state
        state, metrics = train_steps(
            cfg, kernels, "standard", parts, state, batches, rates, n, hyper
        )
        np.asarray(metrics.loss_nats)

    return dispatch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", help="layers x width; by default for the device")
    parser.add_argument("--batch-size", type=int, help="sequences of 256 tokens")
    parser.add_argument("--seconds", type=float, default=3.0)
    flags = parser.parse_args()
    import jax
    import jax.numpy as jnp

    from model.accounting import count_params, train_flops_per_token
    from model.config import ModelConfig

    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    sizes = flags.sizes or (["2x64", "4x128"] if on_cpu else ["4x256", "12x768", "24x1024"])
    batch_size = flags.batch_size or (8 if on_cpu else 64)
    a = jax.device_put(jnp.ones((1024 if on_cpu else 8192,) * 2, jnp.float32), device)
    product = jax.jit(lambda x: x @ x)
    measured = _rate(lambda: product(a).block_until_ready(), 2.0 * len(a) ** 3, flags.seconds)
    kind = device.device_kind
    published = next((v for k, v in PEAK_FLOPS.items() if kind.startswith(k)), None)
    print(f"{kind}: float32 matrix product {measured / 1e12:.3g} TFLOP/s")
    for size in sizes:
        n_layers, d_model = map(int, size.split("x"))
        cfg = ModelConfig(
            n_layers=n_layers, d_model=d_model, n_heads=max(1, d_model // 64),
            d_head=min(64, d_model), d_ff=4 * d_model, vocab_size=2048, seq_len=256,
        )  # fmt: skip
        n_steps = 1 if on_cpu else 8
        tokens = n_steps * batch_size * cfg.seq_len
        rate = _rate(_trainer(cfg, batch_size, n_steps, device), tokens, flags.seconds)
        flops = rate * train_flops_per_token(cfg, "matmul_full")
        told = f"{size:>8} {count_params(cfg).total / 1e6:7.1f}M  {rate:12,.0f} tokens/s  "
        told += f"{flops / 1e12:.3g} TFLOP/s, {flops / measured:.0%} of the product"
        if published:
            told += f", {flops / published:.1%} of the published peak (bfloat16)"
        print(told, flush=True)


if __name__ == "__main__":
    main()
