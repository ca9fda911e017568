from dataclasses import replace
from functools import partial
from itertools import islice

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import ModelConfig
from train.config import Budget, DataConfig, OptimizerConfig, RunSpec, ScheduleConfig
from train.data.batches import gather, target_positions
from train.data.feeding import BatchOrder, gather_on_device, host_batches, place_on_device
from train.data.tokenfiles import TokenizedCorpus
from train.inputs import next_inputs, training_windows
from train.row import describe_spec

DEVICE = jax.devices("cpu")[0]


@st.composite
def orders(draw, few_shapes=False):
    n_windows = draw(st.sampled_from((1, 23)) if few_shapes else st.integers(1, 60))
    return BatchOrder(
        batch_size=draw(st.sampled_from((1, 4) if few_shapes else (1, 2, 4, 6, 12))),
        n_windows=n_windows,
        n_windows_unique=draw(st.integers(1, n_windows)),
        seed=draw(st.integers(0, 2**64 - 1)),
        seq_len=draw(st.sampled_from((1, 5) if few_shapes else (1, 5, 16))),
    )


def tokens_for(order, dtype=np.uint16):
    n = order.n_windows * order.seq_len + 1
    return (np.arange(n) * 2654435761 % np.iinfo(dtype).max).astype(dtype)


@partial(jax.jit, static_argnums=2)
def scanned(tokens, ids_KB, seq_len):
    return jax.lax.scan(
        lambda _, ids: (None, gather_on_device(tokens, ids, seq_len)), None, ids_KB
    )[1]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@given(orders(few_shapes=True), st.integers(0, 400), st.sampled_from((1, 2)))
@settings(max_examples=10)
def test_both_paths_give_the_batches_of_the_indices(dtype, order, first_step, n_threads):
    tokens, steps = tokens_for(order, dtype), np.arange(first_step, first_step + 3)
    ids = order.window_ids(steps)
    expected = gather(tokens, ids, order.seq_len)
    host = host_batches(tokens, order, first_step=first_step, n_threads=n_threads, n_ahead=2)
    assert np.array_equal(np.stack(list(islice(host, 3))), expected)
    resident = place_on_device(tokens, DEVICE)
    assert resident.dtype == dtype
    on_device = scanned(resident, ids.astype(np.int32), order.seq_len)
    assert on_device.dtype == np.int32 and np.array_equal(on_device, expected)


@given(orders(), st.sampled_from((1, 2, 3, 4)))
@settings(max_examples=10)
def test_processes_share_the_rows_of_a_batch(order, count):
    tokens = tokens_for(order)
    if order.batch_size % count:
        with pytest.raises(ValueError, match=f"cannot be shared by {count} processes"):
            host_batches(tokens, order, process=(0, count))
        return
    shares = [next(host_batches(tokens, order, process=(i, count))) for i in range(count)]
    expected = gather(tokens, order.window_ids(0), order.seq_len)
    assert np.array_equal(np.concatenate(shares), expected)


@given(orders(), st.integers(1, 3), st.integers(0, 2**32))
@settings(max_examples=40)
def test_unique_tokens_and_epochs_are_exact(order, n_epochs, other_seed):
    """Over whole epochs each token of the budget is a target equally often, and no other ever."""
    n_steps = n_epochs * order.n_windows_unique  # batch_size times as many windows
    ids = order.window_ids(np.arange(n_steps))
    targets, counts = np.unique(target_positions(ids, order.seq_len), return_counts=True)
    assert len(targets) == order.n_windows_unique * order.seq_len
    assert set(counts.tolist()) == {n_epochs * order.batch_size}


def test_tokens_beyond_32_bit_places_are_refused():
    endless = np.broadcast_to(np.uint8(0), (2**31,))
    with pytest.raises(ValueError, match="cannot lie on a device; use host_batches"):
        place_on_device(endless, DEVICE)


def corpus_of(tokens):
    """A corpus in memory with these training tokens."""
    few, names = tokens[:2], ("train", "validation")
    return TokenizedCorpus(
        name="made-up", origin="", tokenizer="bytes", vocab_size=256, content_hash="0" * 64,
        tokenizer_hash="1" * 64, split_rule="none", train_tokens=tokens, validation_tokens=few,
        train_documents=np.zeros(1, np.int64), validation_documents=np.zeros(1, np.int64),
        train_keys=("a",), validation_keys=("b",), n_train_bytes=len(tokens),
        n_validation_bytes=len(few), n_duplicates_dropped=0, ngram_nats=dict.fromkeys(names, ()),
    )  # fmt: skip


def spec_of(order, n_steps):
    data = DataConfig(
        "made-up", "0" * 64, "bytes", "1" * 64, "none", order.n_windows_unique * order.seq_len
    )
    model = ModelConfig(
        n_layers=1, d_model=8, n_heads=1, d_head=8, d_ff=8, vocab_size=256, seq_len=order.seq_len
    )
    return RunSpec(
        model=model, data=data, optimizer=OptimizerConfig(lr=0.01), budget=Budget(steps=n_steps),
        schedule=ScheduleConfig(warmup_steps=0), batch_size=order.batch_size, seed_data=order.seed,
    )  # fmt: skip


@given(
    orders(few_shapes=True),
    st.integers(0, 200),
    st.sampled_from((1, 2, 4)),
    st.sampled_from((1, 3)),
)
@settings(max_examples=8)
def test_the_trainer_reads_the_batches_of_both_feeds(order, first_step, n_processes, n_threads):
    """Whatever the sizes, the seed, the epoch, the processes and the threads."""
    order = replace(order, seed=order.seed % 2**32)
    tokens, spec = tokens_for(order, np.uint8), spec_of(order, 400)
    corpus = corpus_of(tokens)
    windows, *_ = next_inputs(spec, corpus, training_windows(spec, corpus), first_step)
    n_processes = n_processes if order.batch_size % n_processes == 0 else 1
    shares = [
        host_batches(
            tokens, order, first_step=first_step, process=(i, n_processes), n_threads=n_threads
        )
        for i in range(n_processes)
    ]
    for step, window in enumerate(windows):
        rows = np.concatenate([next(share) for share in shares])
        assert np.array_equal(rows, window), step
    ids = order.window_ids(np.arange(first_step, first_step + len(windows))).astype(np.int32)
    assert np.array_equal(scanned(place_on_device(tokens, DEVICE), ids, order.seq_len), windows)


@given(orders(), st.integers(1, 60))
@settings(max_examples=40)
def test_a_record_says_how_many_tokens_were_read_and_how_often(order, n_steps):
    order = replace(order, seed=order.seed % 2**32)
    spec = spec_of(order, n_steps)
    said = describe_spec(spec, training_windows(spec, corpus_of(tokens_for(order))), n_steps)
    ids = order.window_ids(np.arange(n_steps))
    targets, counts = np.unique(target_positions(ids, order.seq_len), return_counts=True)
    assert said["n_tokens"] == counts.sum() and said["n_tokens_unique"] == len(targets)
    assert counts.max() == np.ceil(said["n_epochs"]) and counts.min() >= np.floor(said["n_epochs"])
