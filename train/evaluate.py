"""Loss over a whole validation split, with both of its standard errors, and by token position."""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from model.config import ModelConfig
from model.functional import Params
from model.kernels import Kernels
from train.data.batches import gather, n_windows, target_positions
from train.data.corpora import TokenizedCorpus
from train.loss import token_losses
from train.parts import EVALUATION_TOKENS

WHOLE_SPLIT = "validation"
MAX_POSITIONS = 128
"""Up to this many positions of a window each has a loss of its own; longer windows have bins."""


@dataclass(frozen=True)
class ByPosition:
    """Loss by place in the window: position t is the t-th target and has t tokens of context.

    Bin k holds positions edges[k] to edges[k + 1] - 1. Means and standard errors are as in
    `Evaluation`; windows start anywhere in documents, so the context of a position may begin in
    the document before.
    """

    edges: tuple[int, ...]
    loss_nats: tuple[float, ...]
    se_document: tuple[float | None, ...]


@dataclass(frozen=True)
class Evaluation:
    """Mean loss in nats/token over every target token of a split, and how well it is known.

    `loss_se_iid` takes tokens as independent draws; `loss_se_document` takes documents as the
    draws (clusters), which is what a claim about other text of this kind needs. Both in nats.
    `loss_se_document` is None when fewer than two documents were seen.
    """

    loss_nats: float
    loss_se_iid: float
    loss_se_document: float | None
    n_tokens: int
    by_position: ByPosition | None = None


def evaluate(
    cfg: ModelConfig,
    params: Params,
    tokens: np.ndarray,
    documents: np.ndarray,
    kernels: Kernels,
    parametrization: str = "standard",
) -> Evaluation:
    """Score a split in windows of seq_len, each token a target once.

    Args:
        params: on the device that is to compute.
        tokens: the split's tokens. documents: int64 start offsets of its documents.
    Raises: ValueError: the split is shorter than one window.
    """
    n = n_windows(len(tokens), cfg.seq_len)
    if n == 0:
        raise ValueError(
            f"the validation split has {len(tokens)} tokens, fewer than one window of "
            f"model.seq_len={cfg.seq_len} + 1; use a shorter seq_len or more text"
        )
    per_batch = max(1, EVALUATION_TOKENS // cfg.seq_len)
    starts = range(0, n, per_batch)
    # The last batch repeats the last window to keep one compiled shape; the surplus is cut off.
    batches = [np.minimum(np.arange(s, s + per_batch), n - 1) for s in starts]
    pending = [
        _token_losses(cfg, kernels, parametrization, params, gather(tokens, ids, cfg.seq_len))
        for ids in batches
    ]
    losses_WT = np.concatenate([np.asarray(x, np.float64) for x in pending])[:n]
    places_WT = target_positions(np.arange(n), cfg.seq_len)
    documents_WT = np.searchsorted(documents, places_WT, side="right")
    whole = summarize(losses_WT.reshape(-1), documents_WT.reshape(-1))
    return replace(whole, by_position=by_position(losses_WT, documents_WT))


def by_position(losses_WT: np.ndarray, documents_WT: np.ndarray) -> ByPosition:
    """Means and errors down the columns of windows, or over bins of columns."""
    edges = position_edges(losses_WT.shape[1])
    found = [
        summarize(
            losses_WT[:, a - 1 : b - 1].reshape(-1), documents_WT[:, a - 1 : b - 1].reshape(-1)
        )
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    return ByPosition(
        edges, tuple(f.loss_nats for f in found), tuple(f.loss_se_document for f in found)
    )


def position_edges(seq_len: int) -> tuple[int, ...]:
    """First position of each bin, and seq_len + 1: single positions, or evenly spaced in log."""
    if seq_len <= MAX_POSITIONS:
        return tuple(range(1, seq_len + 2))
    spaced = np.geomspace(1, seq_len + 1, MAX_POSITIONS + 1)
    return tuple(sorted({round(edge) for edge in spaced.tolist()}))


def evaluation_row(
    evaluation: Evaluation, corpus: TokenizedCorpus, split: str = WHOLE_SPLIT, **about: Any
) -> dict[str, Any]:
    """A row of train.columns.EVALUATION_COLUMNS; `about` is run_id, attempt, step, is_result."""
    positions = evaluation.by_position
    assert positions is not None
    n_bytes = corpus.n_validation_bytes if split == WHOLE_SPLIT else None
    return {
        **about,
        "corpus": corpus.name,
        "corpus_hash": corpus.content_hash,
        "split": split,
        "loss_nats": evaluation.loss_nats,
        "loss_se_iid": evaluation.loss_se_iid,
        "loss_se_document": evaluation.loss_se_document,
        "bits_per_byte": None if n_bytes is None else bits_per_byte(evaluation, n_bytes),
        "n_tokens": evaluation.n_tokens,
        "position_edges": list(positions.edges),
        "position_loss_nats": list(positions.loss_nats),
        "position_se_document": list(positions.se_document),
    }


def bits_per_byte(evaluation: Evaluation, n_bytes: int) -> float:
    """Bits that the scored tokens take, per byte of the split's text."""
    return evaluation.loss_nats * evaluation.n_tokens / math.log(2) / n_bytes


def summarize(losses: np.ndarray, document_ids: np.ndarray) -> Evaluation:
    """Mean and standard errors of token losses [n] that fall into documents [n].

    iid: s / sqrt(n). Clustered: sqrt(G / (G - 1) sum_g (sum_{i in g} (l_i - mean))^2) / n over the
    G documents, the ratio estimator's linearised error.

    Source: Miller 2024, arXiv:2411.00640, eq. 1 and 4; Cochran 1977, section 9A.
    """
    n, mean = losses.size, float(losses.mean())
    _, clusters = np.unique(document_ids, return_inverse=True)
    totals = np.bincount(clusters, weights=losses - mean)
    n_clusters = totals.size
    spread = np.sum(totals**2) * n_clusters / max(n_clusters - 1, 1)
    return Evaluation(
        loss_nats=mean,
        loss_se_iid=float(losses.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0,
        loss_se_document=float(np.sqrt(spread) / n) if n_clusters > 1 else None,
        n_tokens=n,
    )


_token_losses = functools.partial(jax.jit, static_argnums=(0, 1, 2))(
    lambda cfg, kernels, parametrization, params, windows: token_losses(
        cfg, params, windows, kernels, parametrization
    )
)
