"""Kills the process that imports it in the middle of a chosen file operation.

Python imports a module of this name at every start. The harness puts this folder on the path of a
launcher, whose workers inherit it, and one aim into the folder TORTURE_AIMS: JSON of `pattern` (of
paths), `nth` (matching operation of the process) and `delay_s` (after it began). The aim is spent
by the first process that takes it away, so that one aim is one kill.
"""

import fnmatch
import json
import os
import signal
import sys
import threading
import time

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "open"}


def _kill(path: str, event: str, delay_s: float) -> None:
    time.sleep(delay_s)
    try:
        os.rename(path, f"{path[:-5]}-{os.getpid()}.spent")
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _install(path: str) -> None:
    try:
        with open(path) as file:
            aim = json.load(file)
    except FileNotFoundError:
        return
    left, lock = [aim["nth"]], threading.Lock()

    def hook(event: str, arguments: tuple) -> None:
        if event not in CHANGES or left[0] <= 0:
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        paths = [str(a) for a in arguments[:2] if isinstance(a, str | os.PathLike)]
        if not any(fnmatch.fnmatch(p, aim["pattern"]) for p in paths):
            return
        with lock:
            left[0] -= 1
            is_hit = left[0] == 0
        if not is_hit:
            return
        if aim["delay_s"]:
            threading.Thread(target=_kill, args=(path, event, aim["delay_s"]), daemon=True).start()
        else:
            _kill(path, event, 0)

    sys.addaudithook(hook)


if folder := os.environ.get("TORTURE_AIMS"):
    _install(os.path.join(folder, "aim.json"))
