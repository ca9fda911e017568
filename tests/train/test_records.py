import json
import math
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train import records
from train.columns import EVALUATION_COLUMNS, RECORD_VERSION, RUN_COLUMNS
from train.records import RecordError

RUN = "0123456789abcdef"


def row(attempt=1, **values):
    return {**dict.fromkeys(RUN_COLUMNS), "run_id": RUN, "attempt": attempt, **values}


@pytest.fixture
def attempt(tmp_path):
    return records.begin_attempt(tmp_path, RUN)


def test_attempts_are_numbered_past_the_highest(tmp_path):
    first = records.begin_attempt(tmp_path, RUN)
    second = records.begin_attempt(tmp_path, RUN)
    assert [first.number, second.number] == [1, 2]
    assert records.attempts(tmp_path, RUN) == [first, second]
    shutil.rmtree(first.directory)
    assert records.begin_attempt(tmp_path, RUN).number == 3
    assert records.attempts(tmp_path, "feed") == []


def test_attempts_are_ordered_by_number_not_by_name(tmp_path):
    for _ in range(11):
        records.begin_attempt(tmp_path, RUN)
    assert [a.number for a in records.attempts(tmp_path, RUN)] == list(range(1, 12))


def test_of_two_attempts_of_one_number_there_is_one(tmp_path):
    first = records.begin_attempt(tmp_path, RUN, {"holder.json": "the first"}, number=1)
    assert records.begin_attempt(tmp_path, RUN, {"holder.json": "late"}, number=1) is None
    assert (first.directory / "holder.json").read_text() == "the first"
    assert [path.name for path in (tmp_path / RUN).iterdir()] == ["attempt-1"]


def test_an_attempt_made_while_its_run_is_cleaned_up_is_none(tmp_path, monkeypatch):
    """Whoever commits removes what others were about to rename."""
    rename = records.Path.rename

    def cleaned_up(self, target):
        shutil.rmtree(self)
        return rename(self, target)

    monkeypatch.setattr(records.Path, "rename", cleaned_up)
    assert records.begin_attempt(tmp_path, RUN) is None


def test_the_first_of_two_attempts_wins(tmp_path):
    first, second = (records.begin_attempt(tmp_path, RUN) for _ in range(2))
    assert records.read_run(tmp_path, RUN) is None
    assert records.commit(tmp_path, second, row(attempt=2, loss_nats=1.5))
    assert not records.commit(tmp_path, first, row(attempt=1, loss_nats=9.0))
    found = records.read_run(tmp_path, RUN)
    assert found == row(attempt=2, loss_nats=1.5)
    assert records.committed_attempt(tmp_path, found) == second


@pytest.mark.parametrize(
    "change", [lambda r: r.pop("loss_nats"), lambda r: r.update(loss_bits=1.0)]
)
def test_only_a_row_of_the_known_columns_is_committed(tmp_path, attempt, change):
    wrong = row()
    change(wrong)
    with pytest.raises(RecordError, match=r"differs in \['loss_"):
        records.commit(tmp_path, attempt, wrong)
    assert records.read_run(tmp_path, RUN) is None
    assert [p.name for p in attempt.directory.iterdir()] == ["holder.json"]


ADDED_IN = {
    2: ("noise_scale_tokens", "noise_scale_se"),
    3: (
        "optimizer", "ema_decay", "z_loss", "idea", "train_flops_standalone", "train_flops_charged",
        "parent_run_id", "parent_step", "stopped_step", "loss_nats_raw",
    ),
    4: ("retry_of",),
}  # fmt: skip


@pytest.mark.parametrize("version,n_columns", [(1, 53), (2, 55), (3, 65)])
def test_a_record_of_an_older_version_is_read_with_its_later_columns_empty(
    tmp_path, attempt, version, n_columns
):
    later = [name for since, names in ADDED_IN.items() if since > version for name in names]
    old = row(record_version=version, loss_nats=1.5)
    for name in later:
        del old[name]
    assert len(old) == n_columns
    path = tmp_path / RUN / "run.json"
    path.write_text(json.dumps(old))
    os.link(path, attempt.directory / "run.json")
    found = records.read_run(tmp_path, RUN)
    assert found is not None and found == {**old, **dict.fromkeys(later)}
    assert found.keys() == RUN_COLUMNS.keys()
    path.write_text(json.dumps({**old, "record_version": RECORD_VERSION}))
    with pytest.raises(RecordError, match="does not have the columns of record_version=4"):
        records.read_run(tmp_path, RUN)
    with pytest.raises(RecordError, match="differs in .*retry_of"):
        records.commit(tmp_path, attempt, old)


@pytest.mark.parametrize("text", ["{", "", "[1]", "3", "null", '{"run_id": "x"}', "\udcff"])
def test_a_damaged_record_is_refused_by_name(tmp_path, attempt, text):
    records.commit(tmp_path, attempt, row())
    path = tmp_path / RUN / "run.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(RecordError) as error:
        records.read_run(tmp_path, RUN)
    assert str(path) in str(error.value)
    assert "run again" in str(error.value)


def test_numbers_that_are_none_become_null(tmp_path, attempt):
    values = row(loss_nats=math.nan, lr=math.inf, n_tokens=np.int64(7), seconds=np.float32(0.5))
    records.commit(tmp_path, attempt, values)
    found = records.read_run(tmp_path, RUN)
    assert found is not None
    assert [found[k] for k in ("loss_nats", "lr", "n_tokens", "seconds")] == [None, None, 7, 0.5]
    text = (tmp_path / RUN / "run.json").read_text()
    assert "NaN" not in text and "Infinity" not in text


def test_plain_values_go_deep():
    nested = {"a": [np.float64(1.0), (math.nan, "x")], "b": {"c": np.bool_(True), "d": None}}
    assert records.to_plain(nested) == {"a": [1.0, [None, "x"]], "b": {"c": True, "d": None}}


POINTS = [{"step": 1, "loss_nats": 2.5}, {"step": 2, "loss_nats": 2.25}]


def test_curve_comes_back_as_it_was_appended(attempt):
    assert records.read_points(attempt) == []
    records.append_points(attempt, POINTS[:1])
    records.append_points(attempt, [])
    records.append_points(attempt, POINTS[1:])
    assert records.read_points(attempt) == POINTS


@given(n_lost=st.integers(1, 26))
def test_a_torn_last_line_is_left_out(tmp_path_factory, n_lost):
    attempt = records.begin_attempt(tmp_path_factory.mktemp("runs"), RUN)
    records.append_points(attempt, POINTS)
    path = attempt.directory / "curve.jsonl"
    path.write_text(path.read_text()[:-n_lost])
    assert records.read_points(attempt) == POINTS[:1]


def test_a_damaged_line_before_the_last_names_the_file(attempt):
    records.append_points(attempt, POINTS)
    path = attempt.directory / "curve.jsonl"
    path.write_text(path.read_text().replace('"step":1', '"step":'))
    with pytest.raises(RecordError, match=r"curve\.jsonl line 1 is damaged.*run again"):
        records.read_points(attempt)


def test_clean_up_keeps_the_committed_attempt_without_its_checkpoint(tmp_path):
    tried = [records.begin_attempt(tmp_path, RUN) for _ in range(3)]
    for attempt in tried:
        attempt.weights.write_bytes(b"weights")
        for name in ("heartbeat", "ended"):
            (attempt.directory / name).touch()
        attempt.checkpoint_dir.mkdir()
        records.append_points(attempt, POINTS)
    records.clean_up(tmp_path, RUN)
    assert len(records.attempts(tmp_path, RUN)) == 3, "nothing is committed yet"
    records.commit(tmp_path, tried[1], row(attempt=2))
    records.clean_up(tmp_path, RUN)
    files = {p.relative_to(tmp_path / RUN).as_posix() for p in (tmp_path / RUN).rglob("*")}
    inside = ("holder.json", "run.json", "curve.jsonl", "weights.safetensors", "digests.json")
    assert files == {"run.json", "attempt-2", *(f"attempt-2/{name}" for name in inside)}


def test_write_once_never_overwrites(tmp_path):
    path = tmp_path / "prediction.json"
    assert records.write_once(path, "first")
    assert not records.write_once(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_leaves_the_old_file_when_the_writer_fails(tmp_path):
    path = tmp_path / "fits.json"
    records.write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        records.write_atomically(path, "\ud800")
    assert path.read_text() == "old"
    records.write_atomically(path, "new")
    assert path.read_text() == "new"


def test_a_line_of_a_curve_is_strict_json(attempt):
    records.append_points(attempt, [{"step": np.int64(1), "loss_nats": np.float32(math.nan)}])
    (line,) = (attempt.directory / "curve.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {"step": 1, "loss_nats": None}


def evaluation(step=10, corpus_hash="c0", **values):
    row = {**dict.fromkeys(EVALUATION_COLUMNS), "run_id": RUN, "attempt": 1, "is_result": True}
    return {**row, "step": step, "corpus_hash": corpus_hash, "split": "validation", **values}


def test_evaluations_come_back_and_are_not_repeated(attempt):
    assert records.read_evaluations(attempt) == []
    first = evaluation(loss_nats=1.5, position_edges=[1, 2, 3], position_loss_nats=[2.0, 1.0])
    records.add_evaluations(attempt, [first])
    again = [evaluation(loss_nats=9.9), evaluation(corpus_hash="c1"), evaluation(is_result=False)]
    records.add_evaluations(attempt, again)
    assert records.read_evaluations(attempt) == [first, *again[1:]]
    assert {p.name for p in attempt.directory.iterdir()} == {"holder.json", "evaluations.jsonl"}


def test_what_is_not_finite_is_null_in_an_evaluation(attempt):
    values = {"loss_nats": math.nan, "position_loss_nats": [math.inf, 1.0]}
    records.add_evaluations(attempt, [evaluation(**values)])
    (row,) = records.read_evaluations(attempt)
    assert row["loss_nats"] is None and row["position_loss_nats"] == [None, 1.0]


def test_only_evaluations_of_the_known_columns_are_added_and_all_or_none(attempt):
    with pytest.raises(RecordError, match=r"differs in \['loss_bits'\]"):
        records.add_evaluations(attempt, [evaluation(), evaluation(corpus_hash="c1", loss_bits=1)])
    assert records.read_evaluations(attempt) == []


def test_a_torn_last_evaluation_is_mended_and_a_damaged_one_named(attempt):
    path = attempt.directory / "evaluations.jsonl"
    records.add_evaluations(attempt, [evaluation()])
    path.write_text(path.read_text() + '{"run_id": "01')
    records.add_evaluations(attempt, [evaluation(corpus_hash="c1")])
    assert [r["corpus_hash"] for r in records.read_evaluations(attempt)] == ["c0", "c1"]
    path.write_text("{\n" + path.read_text())
    with pytest.raises(RecordError, match=r"evaluations\.jsonl line 1 is damaged"):
        records.add_evaluations(attempt, [evaluation(corpus_hash="c2")])


def test_evaluations_added_at_the_same_time_are_all_kept(attempt):
    hashes = [f"c{i}" for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda h: records.add_evaluations(attempt, [evaluation(corpus_hash=h)]),
                      hashes))  # fmt: skip
    found = sorted(r["corpus_hash"] for r in records.read_evaluations(attempt))
    assert found == sorted(hashes)
