"""One bit of a finished run the other way round: every reader says which file, and what to do."""

import json
import os
import shutil

import pytest

from train import checkpoint, integrity, lease, records
from train.columns import EVALUATION_COLUMNS, RUN_COLUMNS
from train.records import RecordError

RUN = "0123456789abcdef"
POINT = {"run_id": RUN, "attempt": 1, "step": 4, "loss_nats": 2.25}


@pytest.fixture
def attempt(tmp_path):
    """A committed attempt with curve and weights."""
    attempt = records.begin_attempt(tmp_path, RUN)
    assert attempt is not None
    records.append_points(attempt, [POINT])
    attempt.weights.write_bytes(b"some weights")
    values = {"run_id": RUN, "attempt": 1, "loss_nats": 1.5, "record_version": 3}
    records.commit(tmp_path, attempt, {**dict.fromkeys(RUN_COLUMNS), **values})
    return attempt


def test_what_was_written_is_known_by_its_beginning(tmp_path):
    (tmp_path / "a").write_text("one\n")
    written = json.loads(json.dumps(integrity.digests(tmp_path, ["a", "not there"])))
    assert list(written) == ["a"] and not integrity.changed(tmp_path, written)
    (tmp_path / "a").write_text("one\ntwo\n")
    assert not integrity.changed(tmp_path, written), "more after it is no change"
    for text in ("onf\ntwo\n", "one"):
        (tmp_path / "a").write_text(text)
        assert integrity.changed(tmp_path, written) == ["a"]
    (tmp_path / "a").unlink()
    assert integrity.changed(tmp_path, written) == ["a"]
    assert integrity.changed(tmp_path, {"a": ["4", ""]}) == ["a"]


def test_another_digit_in_a_record_is_not_taken_for_a_loss(tmp_path, attempt):
    path = tmp_path / RUN / "run.json"
    assert records.read_run(tmp_path, RUN)["loss_nats"] == 1.5
    path.write_text(path.read_text().replace("1.5", "1.4"))
    with pytest.raises(RecordError, match="not as it was written; remove .* and run again"):
        records.read_run(tmp_path, RUN)


def test_a_record_that_names_another_attempt_is_refused(tmp_path, attempt):
    path = tmp_path / RUN / "run.json"
    path.write_text(path.read_text().replace('"attempt": 1', '"attempt": 7'))
    with pytest.raises(RecordError, match="not as it was written"):
        records.read_run(tmp_path, RUN)


def test_a_copy_without_hard_links_is_read(tmp_path, attempt):
    shutil.copytree(tmp_path / RUN, tmp_path / "copy" / RUN)
    assert records.read_run(tmp_path / "copy", RUN) == records.read_run(tmp_path, RUN)
    assert records.read_points(attempt) == [POINT]


def test_another_digit_in_a_curve_is_not_taken_for_a_point(attempt):
    path = attempt.directory / "curve.jsonl"
    path.write_text(path.read_text().replace("2.25", "2.35"))
    with pytest.raises(RecordError, match=r"curve\.jsonl is not as it was written; remove"):
        records.read_points(attempt)


def test_another_bit_in_weights_is_not_taken_for_a_parameter(attempt, tiny):
    attempt.weights.write_bytes(b"some weightt")
    with pytest.raises(RecordError, match=r"weights\.safetensors is not as it was written"):
        checkpoint.load_weights(attempt.weights, tiny)


def test_damaged_digests_are_said(tmp_path, attempt):
    (attempt.directory / "digests.json").write_text('{"run.json": 3, "curve.jsonl": [1')
    for read in (lambda: records.read_run(tmp_path, RUN), lambda: records.read_points(attempt)):
        with pytest.raises(RecordError, match=r"digests\.json is damaged .*; remove .* run again"):
            read()


def test_a_run_of_an_earlier_version_has_no_digests(tmp_path, attempt):
    os.remove(attempt.directory / "digests.json")
    assert records.read_run(tmp_path, RUN)["loss_nats"] == 1.5
    assert records.read_points(attempt) == [POINT]


def test_a_record_is_linked_once_all_it_speaks_of_is_on_the_disk(tmp_path, monkeypatch):
    """In a power cut, what was not synced may be gone, whatever was written after it."""
    told = []
    sync, link = records._sync, os.link
    monkeypatch.setattr(records, "_sync", lambda path: (told.append(path.name), sync(path)))
    monkeypatch.setattr(os, "link", lambda *paths: (told.append("link"), link(*paths)))
    attempt = records.begin_attempt(tmp_path, RUN)
    assert attempt is not None
    for name in ("curve.jsonl", "evaluations.jsonl", "weights.safetensors"):
        (attempt.directory / name).touch()
    records.commit(tmp_path, attempt, {**dict.fromkeys(RUN_COLUMNS), "run_id": RUN})
    before = told[: told.index("link")]
    assert {"run.json", "curve.jsonl", "evaluations.jsonl", "weights.safetensors"} < {*before}
    assert told[-1] == RUN, "the folder that the link was made in"


def test_evaluations_may_be_added_and_not_changed(attempt):
    first = dict.fromkeys(EVALUATION_COLUMNS, 1) | {"step": 4, "loss_nats": 2.125}
    other = records.begin_attempt(attempt.directory.parents[1], RUN)
    assert other is not None
    records.add_evaluations(other, [first])
    values = {"run_id": RUN, "attempt": 2, "record_version": 3}
    records.commit(other.directory.parents[1], other, {**dict.fromkeys(RUN_COLUMNS), **values})
    records.add_evaluations(other, [{**first, "split": "validation[:9]"}])
    assert len(records.read_evaluations(other)) == 2
    path = other.directory / "evaluations.jsonl"
    path.write_text(path.read_text().replace("2.125", "2.225", 1))
    with pytest.raises(RecordError, match=r"evaluations\.jsonl is not as it was written"):
        records.read_evaluations(other)


def test_a_disk_error_names_one_file(tmp_path):
    with pytest.raises(PermissionError) as found, records.naming(tmp_path / "wanted"):
        raise OSError(13, "Permission denied", "temporary", None, "other")
    assert str(found.value) == f"[Errno 13] Permission denied: '{tmp_path / 'wanted'}'"


@pytest.mark.parametrize("line", [b'{"step": \xff}\n', b"{\n", b"\n"])
def test_a_line_that_is_no_text_is_damaged_like_any_other(tmp_path, line):
    attempt = records.begin_attempt(tmp_path, RUN)
    assert attempt is not None
    (attempt.directory / "curve.jsonl").write_bytes(line)
    with pytest.raises(RecordError, match=r"curve\.jsonl line 1 is damaged .*; remove"):
        records.read_points(attempt)


def test_a_count_that_is_no_text_is_a_count(tmp_path):
    attempt = lease.claim(tmp_path, RUN)
    (attempt.directory / "heartbeat").write_bytes(b"\xff0001\n")
    assert not lease.Watch().is_silent(attempt)
