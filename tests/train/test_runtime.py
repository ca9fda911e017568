import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from train import runtime

ROOT = Path(__file__).resolve().parents[2]
PRINT_ENVIRONMENT = """
import os, sys
from pathlib import Path
from train.runtime import configure, n_cores
configure(Path("cache-folder"))
assert "jax" not in sys.modules
for name in ("NPROC", "XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"):
    print(os.environ[name])
print(n_cores())
"""


def configured(**environment):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "NPROC"))}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_ENVIRONMENT], cwd=ROOT, env={**inherited, **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_configure_after_jax_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="after jax was imported"):
        runtime.configure(tmp_path)


def test_configure_gives_one_device_a_core():
    nproc, flags, cache, n_cores = configured()
    assert nproc == n_cores
    assert flags == f"--xla_force_host_platform_device_count={n_cores}"
    assert cache == "cache-folder"


def test_configure_respects_what_the_user_set():
    given = "--xla_cpu_enable_fast_math=false"
    nproc, flags, cache, n_cores = configured(
        NPROC="3", XLA_FLAGS=given, JAX_COMPILATION_CACHE_DIR="elsewhere"
    )
    assert (nproc, cache) == ("3", "elsewhere")
    assert flags == f"{given} --xla_force_host_platform_device_count={n_cores}"
    count = "--xla_force_host_platform_device_count=5"
    assert configured(XLA_FLAGS=count)[1] == count


def test_runtime_names_device_mode_and_versions():
    found = runtime.describe(jax.devices()[0], "cpu")
    n_devices = len(jax.local_devices())
    assert found.mode == f"cpu kernels=cpu pool={max(int(os.environ['NPROC']), n_devices)}"
    assert found.jax_version == jax.__version__
    assert found.device and found.git_commit
    accelerator = SimpleNamespace(platform="gpu", device_kind="NVIDIA H200")
    found = runtime.describe(accelerator, "plain")
    assert (found.device, found.mode) == ("NVIDIA H200", "gpu kernels=plain")
    assert runtime.describe(accelerator, "plain", 8).mode == "gpu kernels=plain rows=8"


def test_commit_is_unknown_outside_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "__file__", str(tmp_path / "train" / "runtime.py"))
    assert runtime.git_commit() == "unknown"
    (tmp_path / ".git").mkdir()
    assert runtime.git_commit() == "unknown"


def test_a_tpus_compiler_without_a_tpu_is_no_accelerator(tmp_path, monkeypatch):
    """libtpu may be installed to compile ahead of time only; runs stay on the CPU."""
    found = runtime.find_spec

    def with_libtpu(name):
        return None if name == "jax_plugins" else name == "libtpu" or found(name)

    monkeypatch.setattr(runtime, "find_spec", with_libtpu)
    monkeypatch.setattr(runtime, "entry_points", lambda group: ())
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(runtime, "has_tpu_chips", lambda: False)
    assert not runtime.has_accelerator()
    monkeypatch.setattr(runtime, "has_tpu_chips", lambda: True)
    assert runtime.has_accelerator()


def test_chips_are_told_by_their_device_files(tmp_path):
    from train.runtime import has_tpu_chips

    assert not has_tpu_chips(tmp_path)
    (tmp_path / "accel0").touch()
    assert has_tpu_chips(tmp_path)


def test_runs_stay_on_the_cpu_beside_a_tpus_compiler(tmp_path):
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu" / "__init__.py").touch()
    code = (
        "import os; from pathlib import Path; from train import runtime;"
        "runtime.has_tpu_chips = lambda: False; runtime.entry_points = lambda group: ();"
        "runtime.configure(Path('cache-folder')); print(os.environ['JAX_PLATFORMS'])"
    )
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**inherited, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "cpu", done.stderr
