"""Settings every test runs under, and the smallest model worth testing."""

import fcntl
import os
import shutil
import signal
import sys
import tempfile
import textwrap
from collections import Counter
from pathlib import Path

# Read by jax and XLA when they are first imported. A fixed pool size keeps the bits the same on
# machines with more cores.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NPROC", "2")
if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    two_devices = "--xla_force_host_platform_device_count=2"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {two_devices}".strip()
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")

import hypothesis
import pytest

sys.path.append(str(Path(__file__).parent))  # for tiny_study

# A shell has its background jobs ignore Ctrl-C, and the launchers that tests interrupt inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

TYPECHECKED = ("model", "train", "analysis")

QUICK_COMPILATION = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")
"""A training step compiles in a sixth of the time, and most of it is compiled for few steps."""

FOLDERS_AS_ONE = ("tests/figures/",)
"""Of test files that share fixtures in memory which take longer to make than to use."""

LONGEST_FIRST = (
    "tests/figures/",
    "tests/test_launch.py",
    "tests/train/test_step.py",
    "tests/test_analyse.py",
    "tests/experiments/test_local.py",
    "tests/model/test_kernels.py",
    "tests/train/test_loop.py",
    "tests/train/test_rows.py",
    "tests/train/test_ideas.py",
    "tests/model/test_accounting.py",
    "tests/experiments/test_end_to_end.py",
    "tests/experiments/test_branches.py",
    "tests/experiments/test_launchers.py",
    "tests/model/test_parametrization.py",
    "tests/train/test_resume.py",
    "tests/train/test_pack.py",
    "tests/model/test_transformer.py",
)
"""The longest files start first, lest one worker end with one of them and the other idle."""

# Compilation makes the first example slow, so no example is held to a deadline.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser):
    parser.addoption(
        "--typecheck",
        action="store_true",
        help=f"check array shapes and argument types at every call in {', '.join(TYPECHECKED)}",
    )


def pytest_configure(config):
    compile_quickly(config)
    share_compilations(config)
    if config.getoption("--typecheck"):
        import jaxtyping

        jaxtyping.install_import_hook(TYPECHECKED, "beartype.beartype")


def compile_quickly(config):
    """Have XLA optimise little in a run without the slow tests; processes started inherit it.

    Slow tests and benchmarks compile as users do, and so does a test that asks `as_users_compile`.
    """
    if "not slow" not in config.option.markexpr:
        return
    given = os.environ["XLA_FLAGS"]
    new = [flag for flag in QUICK_COMPILATION if flag.split("=")[0] not in given]
    os.environ["XLA_FLAGS"] = " ".join([given, *new])


def share_compilations(config):
    """One cache of compiled programs for all processes of a session, removed at its end.

    xdist's workers, and the processes that tests start, take their environment from here. What
    compiles faster than it is read is left out. A cache of the user's own is used and kept.
    """
    if hasattr(config, "workerinput") or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(items):
    """LONGEST_FIRST, then files of many tests."""
    n_tests = Counter(item.path for item in items)

    def place(item):
        starts = (item.nodeid.startswith(name) for name in LONGEST_FIRST)
        rank = next((i for i, starts in enumerate(starts) if starts), len(LONGEST_FIRST))
        return rank, -n_tests[item.path], str(item.path)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """--dist loadfile, but the files of a folder of FOLDERS_AS_ONE go to one worker, like one."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False  # the order of pytest_collection_modifyitems

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return next((folder for folder in FOLDERS_AS_ONE if file.startswith(folder)), file)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def once(tmp_path_factory, request):
    """once(name, make): a folder that make(folder) fills, in the first process that asks.

    xdist gives each of its workers a session of its own; what takes long is made once for all of
    them. For reading only.
    """
    own = tmp_path_factory.getbasetemp()
    common = own.parent if hasattr(request.config, "workerinput") else own

    def once(name, make):
        folder, done = common / name, common / f"{name}.done"
        with open(common / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def as_users_compile():
    """Options for .compile() of a lowered program that undo QUICK_COMPILATION."""
    return {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


@pytest.fixture(scope="session")
def tiny():
    """A model whose axes differ in size, so that swapped axes fail."""
    from model.config import ModelConfig

    return ModelConfig(
        n_layers=2, d_model=16, n_heads=2, d_head=8, d_ff=64, vocab_size=17, seq_len=12
    )


@pytest.fixture(scope="session")
def own(tmp_path_factory):
    """Keep a file of a user's own as a workspace does: own(text, name) gives its reference."""
    from model import custom

    folder = tmp_path_factory.mktemp("ideas")
    custom.look_in(folder)

    def own(text, name, file="my_idea.py"):
        content = textwrap.dedent(text).encode()
        (folder / f"{custom.digest(content)}.py").write_bytes(content)
        return f"{file}:{name}@{custom.digest(content)}"

    own.folder = folder
    return own


@pytest.fixture
def launched(monkeypatch):
    """launch.main on the tiny study, in this process: call it with arguments, get the exit code."""
    import tiny_study

    import launch

    tiny_study.install(monkeypatch.setattr)
    handler = signal.getsignal(signal.SIGTERM)
    yield lambda *arguments: launch.main([str(argument) for argument in arguments])
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def told(launched, capsys):
    """Run one command; give its exit code, output and complaints."""

    def told(*arguments):
        capsys.readouterr()
        code = launched(*arguments)
        found = capsys.readouterr()
        return code, found.out, found.err

    return told


@pytest.fixture(scope="session")
def finished_study(once, tmp_path_factory):
    """The output folder of the tiny study, trained, fitted and drawn once. For reading only.

    A copy for this process: commands that read a sweep bring its tables up to date.
    """
    out = tmp_path_factory.mktemp("out") / "study"
    return shutil.copytree(once("finished-study", run_the_tiny_study), out, symlinks=True)


def run_the_tiny_study(out):
    import tiny_study

    import launch

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        tiny_study.install(patch.setattr)
        # One worker: a second would import and compile the same again, beside other tests.
        once = ("--workers", "1", "--out", str(out))
        code = launch.main(["run", "quickstart", *tiny_study.FLAGS, *once])
    signal.signal(signal.SIGTERM, handler)
    assert code == 0
