import dataclasses

import jax
import numpy as np
import pytest

from model.functional import apply, init_params
from model.kernels import CPU
from train.columns import EVALUATION_COLUMNS
from train.evaluate import (
    MAX_POSITIONS,
    by_position,
    evaluate,
    evaluation_row,
    position_edges,
    summarize,
)


@pytest.fixture(scope="module")
def params(tiny):
    return jax.tree.map(lambda leaf: 3 * leaf, init_params(tiny, 0))


@pytest.fixture(scope="module")
def direct(tiny, params, corpus):
    """The loss of every target, window by window, with its place in the split."""
    tokens, width = corpus.validation_tokens.astype(np.int32), tiny.seq_len
    n = (len(tokens) - 1) // width
    windows = np.stack([tokens[i * width : i * width + width + 1] for i in range(n)])
    logits = np.asarray(jax.jit(lambda w: apply(tiny, params, w))(windows[:, :-1]), np.float64)
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_p, windows[:, 1:, None], -1).reshape(-1)
    return losses, np.arange(1, n * width + 1)


def test_every_target_counts_once(tiny, params, corpus, direct):
    losses, places = direct
    found = evaluate(tiny, params, corpus.validation_tokens, corpus.validation_documents, CPU)
    assert found.n_tokens == losses.size
    assert 4096 < losses.size < 2 * 4096, "the last batch should be a part of one"
    assert found.loss_nats == pytest.approx(losses.mean(), rel=1e-6)
    assert found.loss_se_iid == pytest.approx(losses.std(ddof=1) / losses.size**0.5, rel=1e-5)
    documents = corpus.validation_documents
    ids = [int(np.flatnonzero(documents <= place)[-1]) for place in places]
    expected = clustered_error(losses, ids)
    assert found.loss_se_document == pytest.approx(expected, rel=1e-4)


def test_tokens_past_the_last_whole_window_change_nothing(tiny, params, corpus):
    documents = corpus.validation_documents
    whole = 100 * tiny.seq_len + 1
    results = [
        evaluate(tiny, params, corpus.validation_tokens[:n], documents, CPU)
        for n in (whole, whole + tiny.seq_len - 1)
    ]
    assert results[0] == results[1]
    assert results[0].n_tokens == 100 * tiny.seq_len


def test_a_split_shorter_than_a_window_is_refused(tiny, params, corpus):
    with pytest.raises(ValueError, match=r"12 tokens.*seq_len=12"):
        evaluate(tiny, params, corpus.validation_tokens[:12], np.array([0]), CPU)


def clustered_error(losses, ids):
    """The ratio estimator's error, summed document by document."""
    by_document = {}
    for loss, document in zip(losses, ids, strict=True):
        by_document.setdefault(document, []).append(loss - np.mean(losses))
    squares = sum(sum(rest) ** 2 for rest in by_document.values())
    n_documents = len(by_document)
    return (n_documents / (n_documents - 1) * squares) ** 0.5 / len(losses)


def test_standard_errors_equal_their_definitions():
    rng = np.random.default_rng(0)
    losses, ids = rng.gamma(2.0, size=500), rng.integers(0, 7, 500)
    found = summarize(losses, ids)
    assert found.loss_nats == pytest.approx(losses.mean())
    assert found.loss_se_iid == pytest.approx(losses.std(ddof=1) / 500**0.5)
    assert found.loss_se_document == pytest.approx(clustered_error(losses, ids))


def test_documents_of_one_token_give_the_iid_error():
    losses = np.random.default_rng(1).gamma(2.0, size=200)
    found = summarize(losses, np.arange(200))
    assert found.loss_se_document == pytest.approx(found.loss_se_iid)


def test_equal_losses_within_documents_give_the_error_of_document_means():
    means = np.array([1.0, 2.0, 4.0, 3.0])
    found = summarize(np.repeat(means, 25), np.repeat(np.arange(4), 25))
    assert found.loss_se_document == pytest.approx(means.std(ddof=1) / 2)
    assert found.loss_se_iid < found.loss_se_document / 2


def test_errors_cover_the_truth_as_often_as_they_claim():
    """Documents that differ: the document error covers at its rate, the iid error does not."""
    rng = np.random.default_rng(2)
    covered = {"loss_se_iid": 0, "loss_se_document": 0}
    for _ in range(300):
        losses = np.repeat(rng.normal(0.0, 1.0, 40), 20) + rng.normal(0.0, 1.0, 800)
        found = dataclasses.asdict(summarize(losses, np.repeat(np.arange(40), 20)))
        for name in covered:
            covered[name] += abs(found["loss_nats"]) < 1.645 * found[name]
    assert 0.84 < covered["loss_se_document"] / 300 < 0.95
    assert covered["loss_se_iid"] / 300 < 0.5


def test_one_document_has_no_document_error():
    assert summarize(np.array([1.0, 2.0]), np.array([0, 0])).loss_se_document is None
    assert summarize(np.array([1.0]), np.array([0])).loss_se_iid == 0.0


def test_loss_by_position_is_the_mean_down_each_column(tiny, params, corpus, direct):
    losses, places = direct
    found = evaluate(tiny, params, corpus.validation_tokens, corpus.validation_documents, CPU)
    positions = found.by_position
    assert positions.edges == tuple(range(1, tiny.seq_len + 2))
    columns = losses.reshape(-1, tiny.seq_len)
    np.testing.assert_allclose(positions.loss_nats, columns.mean(0), rtol=1e-6)
    assert np.mean(positions.loss_nats) == pytest.approx(found.loss_nats)
    ids = np.searchsorted(corpus.validation_documents, places, side="right").reshape(columns.shape)
    for t, se in enumerate(positions.se_document):
        assert se == pytest.approx(clustered_error(columns[:, t], ids[:, t]), rel=1e-4)


def test_bins_of_a_long_window_hold_every_position_once():
    rng = np.random.default_rng(3)
    losses, ids = rng.gamma(2.0, size=(30, 1024)), np.repeat(np.arange(5), 6)[:, None]
    found = by_position(losses, np.broadcast_to(ids, losses.shape))
    edges = np.array(found.edges)
    assert edges[0] == 1 and edges[-1] == 1025 and 60 < len(edges) - 1 <= 128
    widths = np.diff(edges)
    assert (widths > 0).all() and (widths[:10] == 1).all() and widths[-1] > 30
    assert np.dot(widths, found.loss_nats) / 1024 == pytest.approx(losses.mean())
    a, b = edges[-2:] - 1
    assert found.loss_nats[-1] == pytest.approx(losses[:, a:b].mean())


@pytest.mark.parametrize("seq_len", [1, 2, 127, 128, 129, 4096])
def test_edges_grow_from_the_first_position_to_the_last(seq_len):
    edges = position_edges(seq_len)
    assert edges[0] == 1 and edges[-1] == seq_len + 1
    assert all(a < b for a, b in zip(edges, edges[1:], strict=False))
    assert len(edges) - 1 <= MAX_POSITIONS
    assert (len(edges) - 1 == seq_len) == (seq_len <= MAX_POSITIONS)


def test_a_row_has_the_columns_of_the_record(corpus):
    losses = np.random.default_rng(4).gamma(2.0, size=(50, 12))
    ids = np.broadcast_to(np.arange(50)[:, None], losses.shape)
    found = dataclasses.replace(
        summarize(losses.reshape(-1), ids.reshape(-1)), by_position=by_position(losses, ids)
    )
    about = {"run_id": "a", "attempt": 1, "step": 3, "is_result": True}
    row = evaluation_row(found, corpus, **about)
    assert set(row) == set(EVALUATION_COLUMNS)
    bits = losses.sum() / np.log(2)
    assert row["bits_per_byte"] == pytest.approx(bits / corpus.n_validation_bytes)
    assert evaluation_row(found, corpus, "validation[:601]", **about)["bits_per_byte"] is None
