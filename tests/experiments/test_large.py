"""Which run of a plan `train` takes."""

import dataclasses
import json

import pytest

from experiments.aot import aot_spec, find_model
from experiments.large import read_spec
from train.config import Budget, SpecError, to_json


@pytest.fixture
def specs():
    small = aot_spec(find_model("small-2x16").model, 4, "float32")
    return [dataclasses.replace(small, budget=Budget(steps=n)) for n in (10, 30, 20)]


def test_the_run_of_most_compute_is_taken_or_the_one_named(specs, tmp_path):
    path = tmp_path / "plan.json"
    cells = [{"run_id": spec.run_id, "spec": to_json(spec)} for spec in specs]
    path.write_text(json.dumps({"name": "x", "cells": cells}))
    assert read_spec(path, None) == specs[1]
    assert read_spec(path, specs[2].run_id[:10]) == specs[2]
    with pytest.raises(SpecError, match="run=zz is not one run"):
        read_spec(path, "zz")
    with pytest.raises(SpecError, match="run= is not one run"):
        read_spec(path, "")


def test_a_single_spec_is_a_plan_of_one(specs, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(to_json(specs[0])))
    assert read_spec(path, None) == specs[0]


def test_what_is_no_plan_is_refused(tmp_path):
    with pytest.raises(SpecError, match="plan="):
        read_spec(tmp_path / "nowhere.json", None)
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(SpecError, match="object of fields"):
        read_spec(tmp_path / "list.json", None)


def test_a_mesh_that_cannot_be_exits_with_one_line(told, specs, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(to_json(specs[0])))
    code, _, complaint = told("train", path, "--mesh", "data=3", "--out", tmp_path)
    assert code == 2 and "mesh='data=3' is 3 devices and there are 2" in complaint
    code, _, complaint = told("train", path, "--coordinator", "localhost:1", "--out", tmp_path)
    assert code == 2 and "give all three" in complaint
