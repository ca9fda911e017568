"""What makes two runs the same, and the ways in which tests cut one off."""

import itertools

import numpy as np

from model.functional import flatten
from train import records
from train.checkpoint import load_weights, read_spec
from train.columns import RUN_COLUMNS

ABOUT_THIS_ATTEMPT = {"attempt", "seconds", "seconds_compile", "resumed_from_step"}
ABOUT_ITS_PARENT = {"parent_run_id", "parent_step", "train_flops_charged"}


def result_of(store, row):
    """Weights and curve of a committed run."""
    attempt = records.committed_attempt(store, row)
    spec = read_spec(attempt.weights)
    points = [{**p, "attempt": None} for p in records.read_points(attempt)]
    return flatten(load_weights(attempt.weights, spec.model)), points


def assert_same_run(store, row, other_store, other, besides=frozenset()):
    """Records but for provenance and the columns `besides`, curves and weights are equal."""
    for name in RUN_COLUMNS.keys() - ABOUT_THIS_ATTEMPT - besides:
        assert row[name] == other[name], name
    (weights, points), (others, other_points) = result_of(store, row), result_of(other_store, other)
    assert points == other_points
    for name, leaf in others.items():
        np.testing.assert_array_equal(weights[name], leaf, err_msg=name)


def stop_after(n_questions):
    """should_stop that is true from its question n_questions + 1 on."""
    questions = itertools.count(1)
    return lambda: next(questions) > n_questions


class Killed(BaseException):
    """Stands for a kill: nothing in the code under test handles it."""


def kill_at(step):
    """on_progress that kills the run once it has logged a step."""

    def on_progress(progress):
        if progress.step >= step:
            raise Killed

    return on_progress
