import dataclasses
import functools

import jax
import numpy as np
import pytest

from model.functional import flatten, init_params, unflatten
from model.kernels import CPU
from train.config import Budget, OptimizerConfig, ScheduleConfig
from train.loss import mean_loss
from train.optimizer import MUON_RMS, direction, hyperparameters, init_moments
from train.parts import microbatches
from train.schedule import averaging_rates
from train.step import TrainState, train_steps

K, BATCH = 16, 8
GOLDEN = {"loss_nats": 2.92087936, "grad_norm": 1.24592972, "checksum": -6.78064869}
IF_GOLDEN_CHANGED = (
    "One step of a fixed model on fixed windows gives other numbers. In the sixth digit or beyond: "
    "another machine or jax version rounds otherwise, widen nothing without a reason. Above that: "
    "initialisation, model, loss or optimizer changed, and so do all results; if that is meant, "
    "say so in CHANGELOG.md, raise SCHEMA_VERSION, and only then put the new numbers here."
)


@pytest.fixture(scope="module")
def windows(tiny):
    """K batches; in each, windows differ in their first token, so that all can be learned."""
    rng = np.random.default_rng(0)
    found = rng.integers(0, tiny.vocab_size, (K, BATCH, tiny.seq_len + 1), dtype=np.int32)
    found[:, :, 0] = np.arange(BATCH)
    return found


@pytest.fixture(scope="module")
def step(tiny):
    """Take the first `n` of K steps from a seed's parameters, or from a given state."""

    def step(windows, optimizer, lr, *, n=K, parts=1, state=None, seed=0, **extras):
        hyper = hyperparameters(optimizer)
        if state is None:
            params = init_params(tiny, seed)
            # As in the loop: committed to a device, which is a part of jax's own cache key.
            state = jax.device_put(
                TrainState(params, init_moments(params, hyper)), jax.devices()[0]
            )
        rates = np.broadcast_to(np.float32(lr), (K,))
        return train_steps(tiny, CPU, "standard", parts, state, windows, rates, np.int32(n), hyper,
                           **extras)  # fmt: skip

    return step


@pytest.mark.parametrize("compiled", ["quickly", "as users do"])
def test_one_step_is_what_it_always_was(compiled, tiny, windows, as_users_compile):
    # An eps above the rounding of gradients, lest a gradient near zero decide a sign.
    hyper = hyperparameters(OptimizerConfig(lr=1.0, eps=1e-3))
    params, rates = init_params(tiny, 0), np.full(K, 0.01, np.float32)
    given = (TrainState(params, init_moments(params, hyper)), windows, rates, np.int32(1), hyper)
    program = train_steps.lower(tiny, CPU, "standard", 1, *given)
    options = as_users_compile if compiled == "as users do" else None
    state, metrics = program.compile(options)(*given)
    leaves = flatten(state.params)
    weights = np.random.default_rng(1)
    found = {
        "loss_nats": float(metrics.loss_nats[0]),
        "grad_norm": float(metrics.grad_norm[0]),
        # Random weights, so that no two entries can change places unseen.
        "checksum": sum(
            float(np.sum(weights.standard_normal(leaf.shape) * np.asarray(leaf, np.float64)))
            for _, leaf in sorted(leaves.items())
        ),
    }
    assert found == pytest.approx(GOLDEN, rel=2e-5), IF_GOLDEN_CHANGED


def numpy_adamw(params, gradients, config, lr):
    """AdamW after clipping, as its papers write it, in float64; decay on matrices only."""
    first = {name: np.zeros(leaf.shape) for name, leaf in params.items()}
    second = {name: np.zeros(leaf.shape) for name, leaf in params.items()}
    params = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    for t, gradient_of in enumerate(gradients, start=1):
        grads = {n: np.asarray(g, np.float64) for n, g in gradient_of(params).items()}
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        assert norm > config.clip_norm, "the test should clip"
        for name, g in grads.items():
            g = g * config.clip_norm / norm
            first[name] = config.beta1 * first[name] + (1 - config.beta1) * g
            second[name] = config.beta2 * second[name] + (1 - config.beta2) * g**2
            m = first[name] / (1 - config.beta1**t)
            v = second[name] / (1 - config.beta2**t)
            decay = config.weight_decay if params[name].ndim == 2 else 0.0
            update = m / (np.sqrt(v) + config.eps) + decay * params[name]
            params[name] = params[name] - lr * update
    return params


def test_two_steps_equal_adamw_written_by_hand(step, tiny, windows):
    config = OptimizerConfig(
        lr=1.0, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.7, clip_norm=0.05
    )
    initial = init_params(tiny, 0)
    structure = jax.tree.structure(initial)

    def gradient_of(batch):
        def at(params):
            leaves = [params[name].astype(np.float32) for name in names]
            return gradients_at(tiny, jax.tree.unflatten(structure, leaves), batch)

        return at

    paths = jax.tree_util.tree_flatten_with_path(initial)[0]
    names = [".".join(key.key for key in path) for path, _ in paths]
    expected = numpy_adamw(
        flatten(initial), [gradient_of(windows[k]) for k in range(2)], config, 0.01
    )
    state, _ = step(windows, config, 0.01, n=2)
    for name, leaf in flatten(state.params).items():
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


@functools.partial(jax.jit, static_argnums=0)
def gradient(cfg, params, batch):
    return jax.grad(lambda p: mean_loss(cfg, p, batch, CPU))(params)


def gradients_at(cfg, params, batch):
    return flatten(gradient(cfg, params, batch))


def test_two_steps_equal_sgd_with_momentum_written_by_hand(step, tiny, windows):
    config = OptimizerConfig(lr=1.0, kind="sgd", momentum=0.7, weight_decay=0.3, clip_norm=0.05)
    params, velocity = init_params(tiny, 0), {}
    for k in range(2):
        grads = {n: np.asarray(g) for n, g in gradients_at(tiny, params, windows[k]).items()}
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        assert norm > 0.05
        flat = {}
        for name, p in flatten(params).items():
            velocity[name] = 0.7 * velocity.get(name, 0) + grads[name] * 0.05 / norm
            decay = 0.3 * np.asarray(p) if p.ndim == 2 else 0
            flat[name] = np.asarray(p - 0.5 * (velocity[name] + decay), np.float32)
        params = unflatten(flat)
    state, _ = step(windows, config, 0.5, n=2)
    for name, leaf in flatten(state.params).items():
        expected = flatten(params)[name]
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_first_step_of_muon_orthogonalises_single_maps_and_leaves_the_rest_to_adam(
    step, tiny, windows
):
    """Against the SVD of the gradient: the update is U S' V^T, S' near 1, of AdamW's usual size."""
    config = OptimizerConfig(lr=1.0, kind="muon", weight_decay=0.0)
    before = flatten(init_params(tiny, 0))
    grads = gradients_at(tiny, init_params(tiny, 0), windows[0])
    after = flatten(step(windows, config, 0.01, n=1)[0].params)
    adam = dataclasses.replace(config, kind="adamw")
    with_adam = flatten(step(windows, adam, 0.01, n=1)[0].params)
    n_maps = 0
    for name, leaf in after.items():
        if leaf.ndim == 1 or "embedding" in name:
            # Of two programs, which round the norm of the gradient differently.
            np.testing.assert_allclose(leaf, with_adam[name], 1e-6, 1e-8, err_msg=name)
            continue
        n_parts = 3 if name.endswith("qkv") else 1
        update = (np.asarray(before[name]) - np.asarray(leaf)) / 0.01
        for delta, grad in zip(
            np.split(update, n_parts, 1), np.split(np.asarray(grads[name]), n_parts, 1), strict=True
        ):
            n_maps += 1
            left, sizes, right = np.linalg.svd(grad, full_matrices=False)
            stretched = left.T @ delta @ right.T / (MUON_RMS * np.sqrt(max(delta.shape)))
            large = sizes > 0.02 * np.linalg.norm(sizes)
            assert large.sum() > 4
            found = np.diag(stretched)[large]
            assert (found > 0.6).all() and (found < 1.3).all(), (name, found)
            off_diagonal = stretched - np.diag(np.diag(stretched))
            np.testing.assert_allclose(off_diagonal, 0, atol=2e-3, err_msg=name)
    assert n_maps == tiny.n_layers * 6


@pytest.mark.parametrize("kind", ["adamw", "sgd", "muon"])
def test_moments_begin_as_optax_begins_them(kind, tiny):
    hyper, params = hyperparameters(OptimizerConfig(lr=1.0, kind=kind)), init_params(tiny, 0)
    found, expected = init_moments(params, hyper), direction(hyper).init(params)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_moving_average_is_the_weighted_mean_of_the_weights_after_each_step(step, tiny, windows):
    optimizer, decay, n = OptimizerConfig(lr=1.0), 0.8, 5
    after = [flatten(step(windows, optimizer, 0.01, n=k + 1)[0].params) for k in range(n)]
    params = init_params(tiny, 0)
    zeros = jax.tree.map(np.zeros_like, params)
    begun = TrainState(params, init_moments(params, hyperparameters(optimizer)), zeros)
    rates = averaging_rates(decay, np.arange(K))
    state, _ = step(
        windows, optimizer, 0.01, n=n, ema_rate_K=rates,
        state=jax.device_put(begun, jax.devices()[0]),
    )  # fmt: skip
    weights = decay ** np.arange(n - 1, -1, -1.0)
    for name, leaf in flatten(state.result).items():
        np.testing.assert_array_equal(flatten(state.params)[name], after[-1][name])
        mean = np.average([np.asarray(a[name], np.float64) for a in after], 0, weights)
        np.testing.assert_allclose(leaf, mean, rtol=1e-5, atol=1e-6, err_msg=name)


def test_z_loss_of_the_step_is_that_of_the_loss(step, tiny, windows):
    _, plain = step(windows, OptimizerConfig(lr=1.0), 0.01, n=1)
    _, with_z = step(windows, OptimizerConfig(lr=1.0), 0.01, n=1, z_loss=np.float32(0.5))
    expected = mean_loss(tiny, init_params(tiny, 0), windows[0], CPU, 0.5)
    assert float(with_z.loss_nats[0]) == pytest.approx(float(expected), rel=1e-5)
    assert with_z.loss_nats[0] > plain.loss_nats[0] + 0.1


def test_squares_of_microbatches_are_those_of_their_own_gradients(step, tiny, windows):
    _, whole = step(windows, OptimizerConfig(lr=1.0), 0.01, n=1)
    np.testing.assert_allclose(whole.microbatch_square[0], whole.grad_norm[0] ** 2, rtol=1e-5)
    _, metrics = step(windows, OptimizerConfig(lr=1.0), 0.01, n=1, parts=4)
    squares = [
        sum(
            float(np.sum(np.square(g)))
            for g in gradients_at(tiny, init_params(tiny, 0), p).values()
        )
        for p in np.split(windows[0], 4)
    ]
    assert float(metrics.microbatch_square[0]) == pytest.approx(np.mean(squares), rel=1e-4)


def test_without_gradient_signal_only_matrices_decay(step, windows):
    """With a huge eps the gradient's part vanishes and the decay remains."""
    config = OptimizerConfig(lr=1.0, eps=1e12, weight_decay=0.5)
    before = flatten(init_params_of(step, windows, config))
    state, _ = step(windows, config, 0.1, n=1)
    for name, leaf in flatten(state.params).items():
        factor = 1 - 0.1 * 0.5 if leaf.ndim == 2 else 1.0
        np.testing.assert_allclose(leaf, factor * np.asarray(before[name]), rtol=1e-6, err_msg=name)


def init_params_of(step, windows, config):
    """No step taken: the initial parameters, through the compiled step."""
    state, _ = step(windows, config, 0.1, n=0)
    return state.params


def test_a_short_dispatch_takes_its_steps_only(step, windows):
    optimizer = OptimizerConfig(lr=1.0)
    whole, metrics = step(windows, optimizer, 0.01)
    short, some = step(windows, optimizer, 0.01, n=5)
    for name in metrics._fields:
        np.testing.assert_array_equal(getattr(some, name)[:5], getattr(metrics, name)[:5])
        assert not np.asarray(getattr(some, name)[5:]).any()
        assert np.asarray(getattr(metrics, name)).all()
    junk = windows.copy()
    junk[5:] = 0
    again, _ = step(junk, optimizer, 0.01, n=5)
    jax.tree.map(np.testing.assert_array_equal, short.params, again.params)
    embeddings = [state.params["token_embedding"] for state in (whole, short)]
    assert not np.array_equal(*embeddings)


def test_two_dispatches_equal_one(step, windows):
    optimizer = OptimizerConfig(lr=1.0)
    whole, _ = step(windows, optimizer, 0.01, n=8)
    first, _ = step(windows, optimizer, 0.01, n=3)
    second, _ = step(np.roll(windows, -3, axis=0), optimizer, 0.01, n=5, state=first)
    jax.tree.map(np.testing.assert_array_equal, whole, second)


def test_microbatches_average_to_the_full_batch(step, windows):
    optimizer = OptimizerConfig(lr=1.0, eps=1e-3)
    whole, metrics = step(windows, optimizer, 0.01, n=3)
    parts, of_parts = step(windows, optimizer, 0.01, n=3, parts=4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6),
        (whole.params, metrics.loss_nats, metrics.grad_norm),
        (parts.params, of_parts.loss_nats, of_parts.grad_norm),
    )


def test_overfits_one_batch(step, windows):
    optimizer = OptimizerConfig(lr=1.0, weight_decay=0.0)
    one_batch = np.repeat(windows[:1], K, axis=0)
    state, metrics = None, None
    for _ in range(25):
        state, metrics = step(one_batch, optimizer, 0.01, state=state)
    assert metrics is not None and metrics.loss_nats[-1] < 0.1


def test_every_number_has_32_bits(step, windows):
    state, metrics = step(windows, OptimizerConfig(lr=1.0), 0.01)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves((state, metrics))}
    assert kinds == {"float32", "int32"}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(state.params)} == {"float32"}
    assert metrics.loss_nats.shape == metrics.grad_norm.shape == (K,)


def test_runs_of_one_shape_compile_once(make_spec, run):
    run(make_spec(20))
    n_compiled = train_steps._cache_size()
    assert n_compiled > 0
    base = OptimizerConfig(lr=0.02)
    for spec in (
        make_spec(20, optimizer=base),
        make_spec(20, optimizer=dataclasses.replace(base, weight_decay=0.0, clip_norm=0.5)),
        make_spec(20, optimizer=dataclasses.replace(base, beta1=0.8, beta2=0.9, eps=1e-6)),
        make_spec(37, schedule=ScheduleConfig("cosine", warmup_steps=9)),
        make_spec(33, schedule=ScheduleConfig("wsd", decay_steps=5)),
        make_spec(20, seed_init=5, seed_data=6),
        make_spec(budget=Budget(tokens=300), schedule=ScheduleConfig()),
    ):
        run(spec)
    assert train_steps._cache_size() == n_compiled


@pytest.mark.parametrize("kind", ["sgd", "muon"])
def test_a_kind_compiles_once(kind, make_spec, run):
    """And no more for another momentum, decay of the average or z-loss."""
    base = OptimizerConfig(lr=0.02, kind=kind)
    run(make_spec(20, optimizer=base, ema_decay=0.9, z_loss=1e-4))
    n_compiled = train_steps._cache_size()
    other = dataclasses.replace(base, momentum=0.5, weight_decay=0.0, beta1=0.5)
    for spec in (
        make_spec(20, optimizer=other, ema_decay=0.9, z_loss=1e-4),
        make_spec(33, optimizer=base, ema_decay=0.99, z_loss=1e-3),
    ):
        run(spec)
    assert train_steps._cache_size() == n_compiled


def test_gradients_of_large_batches_are_formed_in_parts():
    parts = {n: microbatches(12, n, "cpu") for n in (1, 8, 42, 43, 84, 90)}
    # 512 // 12 = 42 sequences at most; 43 is prime.
    assert parts == {1: 1, 8: 1, 42: 1, 43: 43, 84: 2, 90: 3}
    assert microbatches(12, 84, "gpu") == 1
