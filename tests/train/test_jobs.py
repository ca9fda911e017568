import dataclasses
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import ModelConfig
from train.config import (
    Budget,
    DataConfig,
    EarlyStopping,
    OptimizerConfig,
    RunSpec,
    ScheduleConfig,
    SpecError,
)
from train.jobs import Job, JobQueue, job_from_json, n_flops_own, shared_steps
from train.schedule import learning_rates

CONSTANT = ScheduleConfig("constant", warmup_steps=4)


def wsd(decay_steps, warmup_steps=4):
    return ScheduleConfig("wsd", warmup_steps=warmup_steps, decay_steps=decay_steps)


def test_a_branch_shares_all_steps_at_the_full_rate(make_spec):
    """The cooldown of wsd begins at n - decay_steps with sqrt(0), so one step later in effect."""
    trunk = make_spec(100, schedule=CONSTANT)
    assert shared_steps(trunk, make_spec(60, schedule=wsd(20))) == 60 - 20 + 1
    assert shared_steps(trunk, make_spec(500, schedule=wsd(20))) == 100
    assert shared_steps(trunk, make_spec(40, schedule=CONSTANT)) == 40
    assert shared_steps(make_spec(40, schedule=CONSTANT), trunk) == 40
    assert shared_steps(trunk, trunk) == 100
    assert shared_steps(trunk, make_spec(60, schedule=wsd(20, warmup_steps=5))) == 0
    assert shared_steps(trunk, make_spec(60, schedule=ScheduleConfig("cosine", 4))) == 4 + 1


def test_anything_else_that_differs_leaves_nothing_to_share(make_spec, tiny):
    trunk, branch = make_spec(100, schedule=CONSTANT), make_spec(60, schedule=wsd(20))
    changes = [
        {"model": dataclasses.replace(tiny, tied_head=False)},
        {"data": dataclasses.replace(branch.data, n_tokens_unique=600)},
        {"optimizer": OptimizerConfig(lr=0.02)},
        {"optimizer": OptimizerConfig(lr=0.01, kind="muon")},
        {"batch_size": 4}, {"seed_init": 1}, {"seed_data": 1}, {"parametrization": "mup"},
        {"ema_decay": 0.9}, {"z_loss": 1e-4}, {"early_stopping": EarlyStopping(10, 3)},
        {"loss": f"my_idea.py:loss@{'0' * 64}"},
    ]  # fmt: skip
    assert {name for change in changes for name in change} == {
        f.name for f in dataclasses.fields(branch)
    } - {"budget", "schedule", "dtype"}
    for change in changes:
        assert shared_steps(trunk, dataclasses.replace(branch, **change)) == 0, change
    rule = EarlyStopping(10, 3)
    both = (dataclasses.replace(spec, early_stopping=rule) for spec in (trunk, branch))
    assert shared_steps(*both) == 0
    unread = dataclasses.replace(branch, optimizer=OptimizerConfig(lr=0.01, momentum=0.5))
    assert unread.run_id == branch.run_id and shared_steps(trunk, unread) == 41


schedules = st.one_of(
    st.builds(ScheduleConfig, st.sampled_from(["constant", "cosine", "linear"]), st.integers(0, 9)),
    st.builds(ScheduleConfig, st.just("inverse_sqrt"), st.integers(1, 9)),
    st.builds(wsd, st.integers(1, 9), st.integers(0, 9)),
)


@given(schedules, st.integers(20, 60), schedules, st.integers(20, 60))
def test_shared_steps_are_the_longest_equal_beginning(make_spec, one, n_one, two, n_two):
    specs = [make_spec(n_one, schedule=one), make_spec(n_two, schedule=two)]
    rates = [[float(learning_rates(s, np.array([k]))[0]) for k in range(s.n_steps)] for s in specs]
    shared = shared_steps(*specs)
    assert shared == shared_steps(*reversed(specs)) <= min(n_one, n_two)
    assert rates[0][:shared] == rates[1][:shared]
    assert shared == min(n_one, n_two) or rates[0][shared] != rates[1][shared]


def test_jobs_survive_json(make_spec):
    trunk = make_spec(100, schedule=CONSTANT)
    branch = make_spec(budget=Budget(tokens=6000), schedule=wsd(20), ema_decay=None)
    for job in (Job(trunk, (41, 100)), Job(branch, trunk=trunk), Job(branch)):
        assert job_from_json(json.loads(json.dumps(job.to_json()))) == job


def test_a_branch_has_only_the_steps_after_its_trunk_to_take(make_spec):
    trunk, branch = make_spec(100, schedule=CONSTANT), make_spec(60, schedule=wsd(20))
    assert Job(branch, trunk=trunk).n_steps_own == 60 - 41
    assert Job(branch).n_steps_own == 60
    assert Job(branch, trunk=make_spec(100, seed_data=1)).n_steps_own == 60


@pytest.mark.parametrize("steps", [(0,), (-1,), (101,), (5, 5), (7, 5)])
def test_branch_steps_lie_within_the_run_in_order(steps, make_spec):
    with pytest.raises(SpecError, match=r"branch_steps=.* must rise within 1 to 100"):
        Job(make_spec(100), steps)


MODELS = [
    ModelConfig(n_layers=1, d_model=8 * k, n_heads=k, d_head=8, d_ff=32, vocab_size=17, seq_len=12)
    for k in (1, 2, 3)
]
DATA = DataConfig("x", "x", "x", "x", "x")


def queue_spec(model, steps, seed):
    return RunSpec(
        MODELS[model], DATA, OptimizerConfig(lr=0.1), Budget(steps=steps), seed_init=seed
    )


CHOICES = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 50), st.integers(0, 9)), max_size=12, unique=True
)


@settings(max_examples=50)
@given(CHOICES, st.integers(1, 4))
def test_queue_hands_out_everything_once_and_keeps_shapes_together(choices, n_workers):
    jobs = [Job(queue_spec(*choice)) for choice in choices]
    queue = JobQueue(jobs)
    shapes = [None] * n_workers
    taken = []
    busy = set(range(n_workers))
    while busy:
        for worker in sorted(busy):
            job = queue.take(shapes[worker])
            if job is None:
                busy.remove(worker)
                continue
            left = [j for j in jobs if j not in taken and j.spec.compile_key == shapes[worker]]
            if left:
                assert job.spec.compile_key == shapes[worker]
                assert n_flops_own(job) == max(map(n_flops_own, left))
            shapes[worker] = job.spec.compile_key
            taken.append(job)
    assert Counter(j.spec.run_id for j in taken) == Counter(j.spec.run_id for j in jobs)


@given(CHOICES)
def test_one_worker_changes_shape_as_seldom_as_can_be(choices):
    jobs = [Job(queue_spec(*choice)) for choice in choices]
    queue, shape, order = JobQueue(jobs), None, []
    while (job := queue.take(shape)) is not None:
        shape = job.spec.compile_key
        order.append(shape)
    changes = sum(a != b for a, b in zip(order, order[1:], strict=False))
    assert changes == max(0, len(set(order)) - 1)


def test_more_of_a_shape_is_that_shape_alone_and_the_largest_first():
    jobs = [Job(queue_spec(model, steps, 0)) for model, steps in ((0, 5), (0, 9), (0, 7), (1, 50))]
    queue = JobQueue(jobs)
    shape = jobs[0].spec.compile_key
    assert (queue.n_more(shape), queue.n_left()) == (3, 4)
    assert queue.take_more(shape, 2) == [jobs[1], jobs[2]]
    assert queue.take_more(shape, 2) == [jobs[0]] and queue.take_more(shape, 2) == []
    assert (queue.n_more(shape), queue.n_left()) == (0, 1)


def test_trunks_and_branches_are_rows_of_no_program():
    """A branch takes over the bits of its trunk, and these depend on the number of rows."""
    specs = [queue_spec(0, steps, 0) for steps in (5, 7, 9)]
    trunk, branch = Job(specs[2], branch_steps=(3,)), Job(specs[1], trunk=specs[2])
    queue = JobQueue([trunk, branch, plain := Job(specs[0])])
    shape = plain.spec.compile_key
    assert (queue.n_more(shape), queue.n_left()) == (1, 3)
    assert queue.take_more(shape, 3) == [plain]
    assert [queue.take(shape) for _ in range(3)] == [trunk, branch, None]


def test_an_open_queue_can_be_waited_at():
    """A put wakes who waits; so does the end, and who does not wait gets None at once."""
    jobs = [Job(queue_spec(0, steps, 0)) for steps in (5, 9)]
    queue = JobQueue(is_open=True)
    assert queue.take(None) is None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(queue.take, None, wait=True)
        queue.put(*jobs)
        assert waiting.result(30) == jobs[1], "both were put before anybody could take"
        assert queue.take(None, wait=True) == jobs[0]
        waiting = pool.submit(queue.take, None, wait=True)
        queue.close()
        assert waiting.result(30) is None
    assert queue.take(None, wait=True) is None
