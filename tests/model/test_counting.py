"""The walk over a jaxpr, against products counted by hand."""

import jax
import jax.numpy as jnp
import pytest

from model.counting import jaxpr_flops
from model.functional import abstract_params, features
from model.kernels import CPU, PLAIN

SQUARE = jnp.ones((3, 3))
ONCE = 2 * 3**3


def flops(function, *arguments):
    return jaxpr_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_inner_jaxprs_are_entered_and_scans_multiply():
    step = jax.jit(jnp.matmul)
    assert flops(lambda x: step(x, x), SQUARE) == ONCE
    scan = lambda x: jax.lax.scan(lambda c, _: (step(c, c), None), x, None, length=5)[0]  # noqa: E731
    assert flops(scan, SQUARE) == 5 * ONCE
    assert flops(lambda x: jax.lax.fori_loop(0, 4, lambda _, c: c @ c, x), SQUARE) == 4 * ONCE
    assert flops(jax.vmap(lambda x: x @ x), jnp.ones((7, 3, 3))) == 7 * ONCE


def test_what_is_recomputed_counts_again():
    def loss(x):
        return jnp.sum(jnp.sin(jnp.sin(x @ x) @ x))

    plain, again = (flops(jax.grad(f), SQUARE) for f in (loss, jax.checkpoint(loss)))
    # The forward pass makes 2 products, the backward 4; only the first is needed again.
    assert (plain, again) == (6 * ONCE, 8 * ONCE) or (plain, again) == (6 * ONCE, 7 * ONCE)


def test_hand_written_gradients_are_counted_as_written(tiny):
    """The CPU kernels' custom rules against the plain form, less the means taken by products."""

    def counted(kernels):
        def loss(params, tokens):
            x_BTD, w_VD = features(tiny, params, tokens, kernels=kernels)
            return kernels.cross_entropy(x_BTD.reshape(-1, 16), w_VD, tokens.reshape(-1))

        tokens = jax.ShapeDtypeStruct((1, tiny.seq_len), jnp.int32)
        return flops(jax.value_and_grad(loss), abstract_params(tiny), tokens)

    norms = CPU._replace(layernorm=PLAIN.layernorm, rmsnorm=PLAIN.rmsnorm)
    assert counted(norms) == counted(PLAIN)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_count_each_output_times_what_it_reads(groups):
    x, kernel = jnp.ones((2, 10, 4)), jnp.ones((3, 4 // groups, 8))

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=groups,
        )  # fmt: skip

    # 2 * 8 outputs of 8 channels, each of 3 taps by the channels of its group.
    assert flops(convolve, x, kernel) == 2 * (2 * 8 * 8) * 3 * (4 // groups)


def test_a_loop_of_unknown_length_is_refused_if_it_holds_products():
    def loop(x, body):
        return jax.lax.while_loop(lambda c: c.sum() < 9, body, x)

    assert flops(lambda x: loop(x, lambda c: c + 1), SQUARE) == 0
    with pytest.raises(ValueError, match="while loop holds matrix products.*lax.scan"):
        flops(lambda x: loop(x, lambda c: c @ c), SQUARE)


def test_branches_must_cost_the_same():
    def branch(x, other):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, other, x)

    assert flops(lambda x: branch(x, lambda x: x @ x + 1), SQUARE) == ONCE
    with pytest.raises(ValueError, match="branches of a cond have different FLOPs"):
        flops(lambda x: branch(x, lambda x: x), SQUARE)


def test_work_of_unknown_cost_is_refused():
    with pytest.raises(ValueError, match="FLOPs of 'fft' are not defined"):
        flops(lambda x: jnp.fft.fft(x).real, SQUARE)
