"""What is read from a compiled program is what was written into it."""

import jax
import jax.numpy as jnp
import numpy as np

from train.hlo import Program, _valid_pairs

LENGTH, N, D = 3, 8, 16


def test_products_and_collectives_count_as_often_as_their_loop_turns():
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:2]), ("data",))

    def local(x_ND, w_DD):
        def turn(x_ND, _):
            y_ND = jnp.tanh(x_ND @ w_DD)
            return y_ND + jax.lax.psum(y_ND, "data"), None

        return jax.lax.scan(turn, x_ND, length=LENGTH)[0]

    specs = (jax.P("data"), jax.P())
    spread = jax.shard_map(
        local, mesh=mesh, in_specs=specs, out_specs=jax.P("data"), check_vma=False
    )
    x, w = (
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=jax.NamedSharding(mesh, spec))
        for shape, spec in zip(((2 * N, D), (D, D)), specs, strict=True)
    )
    program = Program(jax.jit(spread).lower(x, w).compile().as_text())
    assert program.product_flops() == LENGTH * 2 * N * D * D
    (found,) = program.collectives()
    assert (found.kind, found.n_devices, found.n_times) == ("all-reduce", 2, LENGTH)
    assert found.sent_bytes == 2 * 4 * N * D / 2


LOOP = """
%turn (p: (u32[], bf16[4,8])) -> (u32[], bf16[4,8]) {
  %p = (u32[], bf16[4,8]{1,0}) parameter(0)
  %i = u32[] get-tuple-element(%p), index=0
  %two = u32[] constant(2)
  %next = u32[] add(%i, %two)
  %x = bf16[4,8]{1,0} get-tuple-element(%p), index=1
  %sent = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[]{:S(2)}) collective-permute-start(%x), \
channel_id=1, source_target_pairs={{0,1},{1,2},{2,0}}
  %y = bf16[4,8]{1,0} collective-permute-done(%sent)
  ROOT %t = (u32[], bf16[4,8]{1,0}) tuple(%next, %y)
}

%is_on (p: (u32[], bf16[4,8])) -> pred[] {
  %limit = u32[]{:T(128)} constant(8)
  %p = (u32[], bf16[4,8]{1,0}) parameter(0)
  %i = u32[] get-tuple-element(%p), index=0
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (a: bf16[4,8], b: bf16[8,6], s: (u32[], bf16[4,8])) -> bf16[4,6] {
  %a = bf16[4,8]{1,0} parameter(0)
  %b = bf16[8,6]{1,0} parameter(1)
  %s = (u32[], bf16[4,8]{1,0}) parameter(2)
  %w = (u32[], bf16[4,8]{1,0}) while(%s), condition=%is_on, body=%turn
  %g = bf16[16,8]{1,0} all-gather(%a), channel_id=7, replica_groups=mesh['x'=2,'y'=4] {'y'}, \
dimensions={0}
  %h = bf16[16,8]{1,0} all-gather(%a), channel_id=7, replica_groups=mesh['x'=2,'y'=4] {'y'}, \
dimensions={0}
  ROOT %c = bf16[4,6]{1,0} convolution(%a, %b), dim_labels=bf_io->bf
}
"""


def test_a_tpus_text_is_read():
    """An unrolled loop counts by twos; one collective in two pieces has one channel."""
    program = Program(LOOP)
    permute, gather = program.collectives()
    assert (permute.kind, permute.n_devices, permute.n_times) == ("collective-permute", 3, 4)
    assert permute.sent_bytes == 2 * 4 * 8
    assert (gather.n_devices, gather.n_times, gather.sent_bytes) == (4, 1, 2 * 16 * 8 * 3 // 4)
    assert program.product_flops() == 2 * 4 * 8 * 6


def test_padding_is_no_product():
    assert _valid_pairs(1, 2, 2, stride=1, pad=1, spread=1, reach=1) == 2
    assert _valid_pairs(2, 2, 1, stride=1, pad=0, spread=1, reach=1) == 2
