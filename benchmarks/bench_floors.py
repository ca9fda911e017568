"""Small transformers trained on languages of known entropy, against the floor.

`python benchmarks/bench_floors.py [STEPS]` prints, for each language, the loss on validation, the
floor, and the loss of the best possible model on the very same tokens. The difference to the last
one has far less noise than either: it can only be negative by chance.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LANGUAGES = (
    "lang:markov:vocab=16,order=1",
    "lang:markov:vocab=8,order=2",
    "lang:even",
    "lang:dyck",
    "lang:modular:modulus=7",
    "lang:grammar:symbols=2,rules=4",
)
SIZES = "train=1e6,validation=50000"
SEQ_LEN, BATCH_SIZE, N_STEPS = 32, 16, 2000


@dataclass(frozen=True)
class Measured:
    """Losses in nats/token; se is the standard error over the validation split's blocks."""

    name: str
    loss: float
    se: float
    floor: float
    oracle: float
    rate: float

    @property
    def excess_in_se(self) -> float:
        """Loss above the floor, in standard errors."""
        return (self.loss - self.floor) / self.se


def measure(name: str, folder: Path, n_steps: int = N_STEPS) -> Measured:
    """Train one small model on a language and score it on the whole validation split."""
    import jax

    from experiments.options import data_config
    from model.config import ModelConfig
    from train.config import Budget, OptimizerConfig, RunSpec, ScheduleConfig
    from train.data import corpora
    from train.data.batches import gather, n_windows
    from train.data.languages import floor_nats
    from train.loop import train

    name = f"{name}{',' if name.count(':') > 1 else ':'}{SIZES}"
    corpus = corpora.prepare(name, folder / "data", log=lambda text: None)
    language = corpora.language(name, folder / "data")
    spec = RunSpec(
        model=ModelConfig(
            n_layers=2, d_model=32, n_heads=4, d_head=8, d_ff=128,
            vocab_size=corpus.vocab_size, seq_len=SEQ_LEN,
        ),
        data=data_config(corpus),
        optimizer=OptimizerConfig(lr=0.01, weight_decay=0.0),
        budget=Budget(steps=n_steps),
        schedule=ScheduleConfig("cosine", warmup_steps=n_steps // 20, final_lr_fraction=0.0),
        batch_size=BATCH_SIZE,
    )  # fmt: skip
    row = train(spec, corpus, folder / "runs", device=jax.devices()[0])
    ids = np.arange(n_windows(len(corpus.validation_tokens), SEQ_LEN))
    windows = gather(corpus.validation_tokens, ids, SEQ_LEN).astype(np.int64)
    return Measured(
        name=name.removesuffix(SIZES).rstrip(",:"),
        loss=row["loss_nats"],
        se=row["loss_se_document"],
        floor=floor_nats(language, SEQ_LEN),
        oracle=float(-language.log_probs(windows, every=SEQ_LEN)[:, 1:].mean()),
        rate=language.entropy_rate_nats(),
    )


def main() -> None:
    """Measure every language and print a line for each."""
    n_steps = int(sys.argv[1]) if len(sys.argv) > 1 else N_STEPS
    with tempfile.TemporaryDirectory() as folder:
        from train.runtime import configure

        configure(Path(folder) / "cache")
        print(f"{n_steps} steps of {BATCH_SIZE} x {SEQ_LEN} tokens, 2 layers of width 32")
        print("| language | entropy rate | floor | best possible | model | se | model - floor |")
        print("|---|---|---|---|---|---|---|")
        for name in LANGUAGES:
            m = measure(name, Path(folder), n_steps)
            print(
                f"| `{m.name}` | {m.rate:.4f} | {m.floor:.4f} | {m.oracle:.4f} | {m.loss:.4f} | "
                f"{m.se:.4f} | {m.loss - m.floor:+.4f} ({m.excess_in_se:+.1f} se) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
