"""Who trains a run: one of many that claim it, until it ends, dies, falls silent or is halted."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from train import lease, records
from train.columns import RUN_COLUMNS
from train.lease import Halt, Holder, Lost, Unavailable, Watch
from train.records import RecordError

RUN = "0123456789abcdef"
ROOT = Path(__file__).parents[2]


def why_not(store, run_id=RUN):
    with pytest.raises(Unavailable) as refused:
        lease.claim(store, run_id)
    return refused.value.why


def commit(store, attempt):
    row = {**dict.fromkeys(RUN_COLUMNS), "run_id": RUN, "attempt": attempt.number}
    return records.commit(store, attempt, row)


def as_if_held_by(attempt, **changes):
    """Rewrite who holds an attempt."""
    holder = dataclasses.replace(lease.this_process(), **changes)
    (attempt.directory / "holder.json").write_text(json.dumps(dataclasses.asdict(holder)))
    return holder


def python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_claimed_run_is_held_until_its_attempt_ends(tmp_path):
    attempt = lease.claim(tmp_path, RUN)
    assert attempt.number == 1 and lease.holder_of(attempt) == lease.this_process()
    assert why_not(tmp_path) == "held"
    lease.end(attempt)
    lease.end(attempt)
    assert lease.claim(tmp_path, RUN).number == 2
    shutil.rmtree(attempt.directory)
    lease.end(attempt)
    assert not attempt.directory.exists()


def test_a_committed_or_halted_run_is_not_claimed(tmp_path):
    attempt = lease.claim(tmp_path, RUN)
    lease.halt(tmp_path, RUN, Halt("cancelled", "not wanted"))
    assert why_not(tmp_path) == "halted" and lease.is_lost(attempt)
    assert not lease.is_fenced(attempt), "its holder may leave a checkpoint"
    assert lease.lift(tmp_path, RUN) and not lease.lift(tmp_path, RUN)
    assert lease.halt_of(tmp_path, RUN) is None and not lease.is_lost(attempt)
    commit(tmp_path, attempt)
    assert why_not(tmp_path) == "committed"


def test_a_claim_that_comes_after_the_commit_leaves_nothing(tmp_path, monkeypatch):
    """Another process commits between the first look and the new attempt."""
    attempt = lease.claim(tmp_path, RUN)
    lease.end(attempt)
    begin = records.begin_attempt

    def slow(*arguments):
        commit(tmp_path, attempt)
        records.clean_up(tmp_path, RUN)
        return begin(*arguments)

    monkeypatch.setattr(records, "begin_attempt", slow)
    assert why_not(tmp_path) == "committed"
    assert records.attempts(tmp_path, RUN) == [attempt]


def test_a_claim_that_looked_before_another_began_does_not_follow_it(tmp_path, monkeypatch):
    """Its number is that after what it saw: one past a live attempt would take the run away."""
    begin, others = records.begin_attempt, []

    def slow(*arguments):
        monkeypatch.setattr(records, "begin_attempt", begin)
        others.append(lease.claim(tmp_path, RUN))
        return begin(*arguments)

    monkeypatch.setattr(records, "begin_attempt", slow)
    assert why_not(tmp_path) == "held"
    assert records.attempts(tmp_path, RUN) == others and not lease.is_lost(others[0])


def test_of_many_that_claim_at_one_moment_exactly_one_gets_the_run(tmp_path):
    """Four processes, 60 runs; every second run has an attempt already whose holder is gone."""
    code = (
        "import json, sys; from pathlib import Path; from train import lease\n"
        "print('ready', flush=True); sys.stdin.readline(); won = []\n"
        "for i in range(60):\n"
        "    try: won.append((i, lease.claim(Path(sys.argv[1]), f'run{i:02d}').number))\n"
        "    except lease.Unavailable as error: assert error.why == 'held'\n"
        "print(json.dumps(won), flush=True); sys.stdin.readline()\n"
    )
    for i in range(0, 60, 2):
        as_if_held_by(lease.claim(tmp_path, f"run{i:02d}"), started="another life")
    processes = [python(code, tmp_path) for _ in range(4)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        won = [json.loads(process.stdout.readline()) for process in processes]
    finally:
        for process in processes:
            process.communicate("end\n")
    assert sorted(sum(won, [])) == [[i, 1 + (i % 2 == 0)] for i in range(60)]
    assert sum(map(bool, won)) > 1, "they ran at once"
    assert not list(tmp_path.glob("*/.attempt-*"))


def test_the_run_of_a_killed_process_is_free_at_once(tmp_path):
    code = (
        "import sys; from pathlib import Path; from train import lease\n"
        "lease.claim(Path(sys.argv[1]), sys.argv[2]); print(flush=True); sys.stdin.read()"
    )
    with python(code, tmp_path, RUN) as process:
        process.stdout.readline()
        assert why_not(tmp_path) == "held"
        process.kill()
        # Not waited for: a zombie is gone as well.
        wait_for(lambda: lease.is_over(records.attempts(tmp_path, RUN)[0]))
    assert lease.claim(tmp_path, RUN).number == 2


def test_only_what_is_certain_is_taken_for_gone(tmp_path, monkeypatch):
    attempt = lease.claim(tmp_path, RUN)
    assert as_if_held_by(attempt, started="1").is_gone() and lease.is_over(attempt)
    elsewhere = as_if_held_by(attempt, machine="another boot", started="1")
    assert not elsewhere.is_gone() and not lease.is_over(attempt)
    nobody = as_if_held_by(attempt, pid=2**22 + 1)
    assert nobody.is_gone()
    # A process that the kernel shows to its owner only.
    monkeypatch.setattr(lease, "_exists", lambda pid: True)
    assert not nobody.is_gone() and not lease.is_over(attempt)


@pytest.mark.parametrize("text", ["", "{}", '{"host": 1}', "[]", "torn"])
def test_an_attempt_that_does_not_say_its_holder_is_over(text, tmp_path):
    attempt = lease.claim(tmp_path, RUN)
    (attempt.directory / "holder.json").write_text(text)
    assert lease.holder_of(attempt) is None and lease.is_over(attempt)
    (attempt.directory / "holder.json").unlink()
    assert lease.is_over(attempt)


def test_a_pid_says_nothing_where_the_machine_is_unknown(monkeypatch):
    monkeypatch.setattr(lease.os, "readlink", lambda path: (_ for _ in ()).throw(OSError))
    mine = lease.this_process()
    assert mine.machine.startswith("unknown ")
    assert not Holder("host", "unknown host 1", mine.pid, "0").is_gone()


def test_who_holds_a_run_counts_and_ends_it(tmp_path):
    attempt = lease.claim(tmp_path, RUN)
    heartbeat = attempt.directory / "heartbeat"
    first = heartbeat.read_bytes()
    with lease.held(attempt, every_s=0.01) as is_lost:
        wait_for(lambda: int(heartbeat.read_text()) > 3)
        assert len(heartbeat.read_bytes()) == len(first) and not is_lost()
        assert not lease.is_over(attempt)
    assert lease.is_over(attempt)
    assert "heart of" not in " ".join(thread.name for thread in threading.enumerate())


def test_who_fails_ends_the_attempt_too(tmp_path):
    with pytest.raises(Lost), lease.held(lease.claim(tmp_path, RUN)):
        raise Lost(RUN)
    assert lease.claim(tmp_path, RUN).number == 2


def take_over(store, attempt):
    lease.end(attempt)
    lease.claim(store, RUN)


@pytest.mark.parametrize(
    "taken",
    [
        lambda store, attempt: lease.end(attempt),
        take_over,
        lambda store, attempt: records.begin_attempt(store, RUN, number=attempt.number + 1),
        lambda store, attempt: lease.halt(store, RUN, Halt("failed", "broken")),
        lambda store, attempt: commit(store, attempt),
        lambda store, attempt: shutil.rmtree(attempt.directory),
        lambda store, attempt: shutil.rmtree(store),
    ],
    ids=["ended", "taken over", "followed", "halted", "committed", "removed", "store removed"],
)
def test_the_holder_finds_that_an_attempt_was_taken(taken, tmp_path):
    attempt = lease.claim(tmp_path, RUN)
    with lease.held(attempt, every_s=0.01) as is_lost:
        time.sleep(0.03)
        assert not is_lost()
        taken(tmp_path, attempt)
        wait_for(is_lost)


def test_a_committed_attempt_is_not_marked(tmp_path):
    """What clean_up removed does not come back."""
    attempt = lease.claim(tmp_path, RUN)
    with lease.held(attempt, every_s=0.001):
        commit(tmp_path, attempt)
        records.clean_up(tmp_path, RUN)
        time.sleep(0.02)
    left = {path.name for path in attempt.directory.iterdir()}
    assert left == {"holder.json", "run.json", "digests.json"}


def test_a_disk_that_fails_does_not_stop_the_heart(tmp_path, monkeypatch):
    attempt = lease.claim(tmp_path, RUN)
    failed = threading.Event()

    def fails(*_):
        failed.set()
        raise OSError(5, "Input/output error")

    with lease.held(attempt, every_s=0.01) as is_lost:
        with monkeypatch.context() as patch:
            patch.setattr(lease, "is_lost", fails)
            assert failed.wait(10)
        count = int((attempt.directory / "heartbeat").read_text())
        wait_for(lambda: int((attempt.directory / "heartbeat").read_text()) > count)
        assert not is_lost()


class Clock:
    def __init__(self, start_s=0.0):
        self.now_s = start_s

    def __call__(self):
        return self.now_s


def beat(attempt, count):
    (attempt.directory / "heartbeat").write_text(f"{count:020d}\n")


@pytest.mark.parametrize("start_s", [0.0, -1e9, 4e9])
def test_silence_is_measured_by_the_watchers_clock_alone(start_s, tmp_path):
    """Whatever the clock shows, and whatever times the files bear."""
    attempt = lease.claim(tmp_path, RUN)
    as_if_held_by(attempt, machine="another boot")
    clock = Clock(start_s)
    watch = Watch(patience_s=90, clock=clock)
    assert not watch.is_silent(attempt) and not watch.is_beating(attempt)
    for count, file_time in ((1, 0), (2, 2**33), (3, 0)):
        clock.now_s += 89
        beat(attempt, count)
        os.utime(attempt.directory / "heartbeat", (file_time, file_time))
        assert not watch.is_silent(attempt) and watch.is_beating(attempt)
    clock.now_s += 90
    assert not watch.is_available(tmp_path, RUN)
    clock.now_s += 1
    assert watch.is_silent(attempt) and not watch.is_beating(attempt)
    assert watch.is_available(tmp_path, RUN) and lease.is_over(attempt)
    assert lease.claim(tmp_path, RUN).number == 2


def test_who_was_paused_itself_takes_nobody_for_dead(tmp_path):
    """A watcher that looks again after an hour sees that the count went on."""
    attempt = lease.claim(tmp_path, RUN)
    clock = Clock()
    watch = Watch(clock=clock)
    watch.is_silent(attempt)
    clock.now_s += 3600
    beat(attempt, 1800)
    assert not watch.is_silent(attempt)


def test_a_new_attempt_is_watched_from_its_first_sight(tmp_path):
    attempt = lease.claim(tmp_path, RUN)
    clock = Clock()
    watch = Watch(patience_s=90, clock=clock)
    watch.is_silent(attempt)
    clock.now_s += 91
    (attempt.directory / "heartbeat").unlink()
    assert not watch.is_silent(attempt), "the file's end is a change"
    lease.end(attempt)
    second = lease.claim(tmp_path, RUN)
    as_if_held_by(second, machine="another boot")
    assert not watch.is_available(tmp_path, RUN)
    clock.now_s += 91
    assert watch.is_available(tmp_path, RUN) and lease.is_over(second)
    assert watch.is_available(tmp_path, "a run that nobody began")


def test_a_holder_that_was_paused_finds_that_it_is_fenced(tmp_path):
    """A child counts, is stopped, is taken for dead, wakes up and looks before it commits."""
    code = (
        "import sys; from pathlib import Path; from train import lease\n"
        "attempt = lease.claim(Path(sys.argv[1]), sys.argv[2])\n"
        "with lease.held(attempt, every_s=0.01) as is_lost:\n"
        "    print('held', flush=True); sys.stdin.readline()\n"
        "    print(lease.is_fenced(attempt), flush=True)\n"
    )
    with python(code, tmp_path, RUN) as process:
        assert process.stdout.readline() == "held\n"
        (attempt,) = records.attempts(tmp_path, RUN)
        watch = Watch(patience_s=0.3)
        wait_for(lambda: not watch.is_available(tmp_path, RUN) and watch.is_beating(attempt))
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: watch.is_available(tmp_path, RUN))
        second = lease.claim(tmp_path, RUN)
        process.send_signal(signal.SIGCONT)
        assert process.communicate("go\n")[0] == "True\n"
    assert not lease.is_lost(second)


def test_why_a_run_is_halted_is_kept_whole(tmp_path):
    why = Halt("failed", "out of memory", host="here", log="logs/worker.log")
    lease.halt(tmp_path, RUN, why)
    assert lease.halt_of(tmp_path, RUN) == why
    lease.halt(tmp_path, RUN, Halt("cancelled", "not wanted"))
    assert lease.halt_of(tmp_path, RUN).kind == "cancelled"
    (tmp_path / RUN / "halt.json").write_text("{")
    with pytest.raises(RecordError, match=r"halt\.json is damaged .* remove it"):
        lease.halt_of(tmp_path, RUN)
