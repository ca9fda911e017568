"""Training throughput on the CPU, side by side: ours, a plain Flax trainer, and nanoGPT in PyTorch.

A sweep is many small runs, so what counts is tokens per second over all cores. Every side is run as
one one-core process a core, and ours also as threads of one process; a side's best layout counts.
Workers of all sides are started first; then rounds in turn, each side alone on the machine. Printed
are medians over rounds of ratios within a round, and the share of the matrix-product rate that the
same cores reached in the same rounds.

    python benchmarks/bench_train.py [SHAPE ...] [--rounds 7] [--seconds 1.5] [--sides ours ...]

PyTorch is optional (the extra `bench`); without it the side is left out, by name.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Shape:
    """A model of GPT-2's kind and its batch, in sequences of `seq_len` tokens."""

    n_layers: int
    d_model: int
    n_heads: int
    vocab_size: int = 256
    batch_size: int = 32
    seq_len: int = 128

    @property
    def tokens(self) -> int:
        return self.batch_size * self.seq_len

    @property
    def dispatch(self) -> int:
        """Steps between two looks at the clock: 16 as in training, fewer where they take long."""
        n_params = 12 * self.n_layers * self.d_model**2 + self.vocab_size * self.d_model
        return max(1, min(16, int(1e10 / (6 * n_params * self.tokens))))


SHAPES = {
    "25k": Shape(2, 32, 2),
    "25k-v2048": Shape(2, 32, 2, vocab_size=2048),
    "150k": Shape(3, 64, 4),
    "800k": Shape(4, 128, 4),
    "800k-v2048": Shape(4, 128, 4, vocab_size=2048),
    "2.7M": Shape(6, 192, 6),
    "10M": Shape(6, 384, 6, batch_size=16),
}
SMALL = ("25k", "25k-v2048", "150k", "800k", "800k-v2048")
"""Over these the geometric mean is taken."""


def _config(shape: Shape):
    from model.config import ModelConfig

    return ModelConfig(
        n_layers=shape.n_layers, d_model=shape.d_model, n_heads=shape.n_heads,
        d_head=shape.d_model // shape.n_heads, d_ff=4 * shape.d_model,
        vocab_size=shape.vocab_size, seq_len=shape.seq_len,
    )  # fmt: skip


def _windows(shape: Shape, n: int):
    import numpy as np

    rng = np.random.default_rng(0)
    size = (n, shape.batch_size, shape.seq_len + 1)
    return rng.integers(0, shape.vocab_size, size, np.int32)


def ours(shape: Shape, device=None):
    """One dispatch of the trainer's compiled step; returns a call that takes 16 steps."""
    import jax
    import numpy as np

    from model.functional import init_params
    from model.kernels import kernels_for
    from train.config import OptimizerConfig
    from train.optimizer import hyperparameters, init_moments
    from train.parts import microbatches
    from train.step import TrainState, train_steps

    cfg, device = _config(shape), device or jax.devices()[0]
    hyper = hyperparameters(OptimizerConfig(lr=1e-3))
    params = init_params(cfg, 0)
    state = jax.device_put(TrainState(params, init_moments(params, hyper)), device)
    batches, rates = _windows(shape, shape.dispatch), np.full(shape.dispatch, 1e-3, np.float32)
    parts = microbatches(cfg.seq_len, shape.batch_size, device.platform)
    kernels = kernels_for(device.platform)

    def dispatch() -> int:
        nonlocal state
        state, metrics = train_steps(
            cfg, kernels, "standard", parts, state, batches, rates, np.int32(shape.dispatch), hyper
        )
        np.asarray(metrics.loss_nats)
        return shape.dispatch * shape.tokens

    return dispatch


def flax(shape: Shape):
    """The tutorial's way: Flax modules, optax, one jitted step a call."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import linen as nn

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            h = nn.LayerNorm(use_bias=False)(x)
            causal = nn.make_causal_mask(jnp.ones(x.shape[:2]))
            x = x + nn.SelfAttention(shape.n_heads, use_bias=False)(h, mask=causal)
            h = nn.Dense(4 * shape.d_model, use_bias=False)(nn.LayerNorm(use_bias=False)(x))
            return x + nn.Dense(shape.d_model, use_bias=False)(nn.gelu(h))

    class GPT(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            embed = nn.Embed(shape.vocab_size, shape.d_model)
            positions = nn.Embed(shape.seq_len, shape.d_model)
            x = embed(tokens) + positions(jnp.arange(tokens.shape[1]))[None]
            for _ in range(shape.n_layers):
                x = Block()(x)
            return embed.attend(nn.LayerNorm(use_bias=False)(x))

    model, batches = GPT(), _windows(shape, shape.dispatch)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=0.1))
    params = model.init(jax.random.key(0), batches[0, :, :-1])
    state = optimizer.init(params)

    def loss_of(params, windows):
        logits = model.apply(params, windows[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:]).mean()

    def step(params, state, windows):
        loss, grads = jax.value_and_grad(loss_of)(params, windows)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    step = jax.jit(step, donate_argnums=(0, 1))

    def dispatch() -> int:
        nonlocal params, state
        for windows in batches:
            params, state, loss = step(params, state, windows)
            float(loss)
        return shape.dispatch * shape.tokens

    return dispatch


def nanogpt(shape: Shape):
    """GPT-2 in eager PyTorch as nanoGPT trains it: fused attention, AdamW, clipped gradients."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(1)
    torch.manual_seed(0)
    D = shape.d_model

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
            self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
            self.up, self.down = nn.Linear(D, 4 * D, bias=False), nn.Linear(4 * D, D, bias=False)

        def forward(self, x):
            B, T, _ = x.shape
            heads = (B, T, shape.n_heads, D // shape.n_heads)
            q, k, v = (a.view(heads).transpose(1, 2) for a in self.qkv(self.norm1(x)).split(D, 2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(B, T, D))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Embedding(shape.vocab_size, D)
            self.positions = nn.Embedding(shape.seq_len, D)
            self.blocks = nn.Sequential(*(Block() for _ in range(shape.n_layers)))
            self.norm = nn.LayerNorm(D, bias=False)

        def forward(self, tokens, targets):
            x = self.tokens(tokens) + self.positions.weight[None, : tokens.shape[1]]
            logits = F.linear(self.norm(self.blocks(x)), self.tokens.weight)
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    model, batches = GPT(), torch.from_numpy(_windows(shape, shape.dispatch)).long()
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), fused=True)

    def dispatch() -> int:
        for windows in batches:
            loss = model(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
        return shape.dispatch * shape.tokens

    return dispatch


def matmul(shape: Shape):
    """The float32 matrix product alone, in FLOPs: the rate that nothing here can pass."""
    import jax
    import numpy as np

    n = 1024
    a = np.random.default_rng(0).standard_normal((n, n), np.float32)
    product, on_device = jax.jit(lambda x: x @ x), jax.device_put(a)
    product(on_device).block_until_ready()

    def seconds(call) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    calls = [lambda: np.matmul(a, a), lambda: product(on_device).block_until_ready()]
    best = min(calls, key=lambda call: min(seconds(call) for _ in range(5)))

    def dispatch() -> int:
        best()
        return 2 * n**3

    return dispatch


SIDES = {"ours": ours, "threads": ours, "flax": flax, "nanogpt": nanogpt, "matmul": matmul}


def _worker(side: str, shape: Shape) -> None:
    """Warm up, say so, then work for as long as each line of input asks; answer with the rate."""
    if side == "threads":
        import jax

        calls = [ours(shape, device) for device in jax.local_devices()]
    else:
        calls = [SIDES[side](shape)]
    for call in calls:
        call()
    print("ready", flush=True)
    for line in sys.stdin:
        rates = [0.0] * len(calls)

        def work(i: int, limit: float, rates=rates) -> None:
            done, start = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - start) < limit:
                done += calls[i]()
            rates[i] = done / elapsed

        threads = [threading.Thread(target=work, args=(i, float(line))) for i in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(json.dumps(sum(rates)), flush=True)


class Side:
    """A side's worker processes: one a core, or one with a device a core."""

    def __init__(self, side: str, shape: str, n_cores: int):
        is_one = side == "threads"
        environment = {
            **os.environ, "NPROC": str(n_cores if is_one else 1), "JAX_PLATFORMS": "cpu",
            "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "bench_train_cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={n_cores if is_one else 1}",
        }  # fmt: skip
        self.processes = [
            subprocess.Popen(
                [sys.executable, __file__, "--worker", side, shape], env=environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for _ in range(1 if is_one else n_cores)
        ]  # fmt: skip

    def wait(self) -> None:
        for process in self.processes:
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"a worker failed: {process.args}")

    def rate(self, seconds: float) -> float:
        """Tokens (or FLOPs) per second of all workers together."""
        for process in self.processes:
            print(seconds, file=process.stdin, flush=True)
        return sum(json.loads(process.stdout.readline()) for process in self.processes)

    def close(self) -> None:
        for process in self.processes:
            process.stdin.close()
            process.wait()


def measure(shape: str, names: list[str], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Rates by side, one a round; the sides take turns within a round."""
    n_cores = len(os.sched_getaffinity(0))
    sides = {name: Side(name, shape, n_cores) for name in names}
    try:
        for side in sides.values():
            side.wait()
        found = {name: [] for name in names}
        for _ in range(rounds):
            for name, side in sides.items():
                found[name].append(side.rate(seconds))
        return found
    finally:
        for side in sides.values():
            side.close()


def _ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", default=list(SHAPES), help=", ".join(SHAPES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a side in a round")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        side, shape = flags.worker
        return _worker(side, SHAPES[shape])
    names = flags.sides
    if "nanogpt" in names and importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed (the extra `bench`): nanogpt is left out")
        names = [name for name in names if name != "nanogpt"]
    from model.accounting import train_flops_per_token

    print("tokens/s of all cores, medians; ratios are medians of ratios within a round")
    best_of: dict[str, dict[str, float]] = {}
    for shape in flags.shapes:
        found = measure(shape, names, flags.rounds, flags.seconds)
        medians = {name: statistics.median(rates) for name, rates in found.items()}
        best = max((n for n in ("ours", "threads") if n in medians), key=lambda n: medians[n])
        ratios = {n: _ratio(found[best], found[n]) for n in ("flax", "nanogpt") if n in found}
        line = "  ".join(f"{n} {medians[n]:,.0f}" for n in names if n != "matmul")
        line += f"  | {best}: " + ", ".join(f"{r:.2f}x {n}" for n, r in ratios.items())
        if "matmul" in found:
            flops = train_flops_per_token(_config(SHAPES[shape]), "matmul_full")
            share = _ratio(found[best], found["matmul"]) * flops
            line += f", {share:.0%} of {medians['matmul'] / 1e9:.0f} GFLOP/s"
        print(f"{shape:>11}  {line}", flush=True)
        best_of[shape] = ratios
    for name in ("flax", "nanogpt"):
        small = [best_of[s][name] for s in flags.shapes if s in SMALL and name in best_of[s]]
        if small:
            mean = statistics.geometric_mean(small)
            print(f"geometric mean up to 1M parameters: {mean:.2f}x {name} ({len(small)} shapes)")


if __name__ == "__main__":
    main()
