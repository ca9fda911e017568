"""Where a run computes: set before jax is imported, and stated in every record after."""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Runtime:
    """What 'the same machine' means for bit-identity; provenance, never identity of a run.

    `mode` holds what bits depend on: on a CPU XLA's pool of threads, the kernels' form, and how
    many runs were rows of one program, if several.
    """

    device: str
    mode: str
    jax_version: str
    git_commit: str


def n_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def configure(cache_dir: Path) -> None:
    """Set up XLA for many small models at once: one virtual CPU device a core, a compile cache.

    Call before jax is imported. XLA:CPU's bits depend on its thread pool, so the pool and the
    device count are fixed to the machine's cores, not to how many of them a command uses.
    NPROC or XLA_FLAGS from the user's environment are respected.

    Raises: RuntimeError: jax was imported already, so nothing here could take effect.
    """
    if "jax" in sys.modules:
        raise RuntimeError("configure() was called after jax was imported; call it first")
    os.environ.setdefault("NPROC", str(n_cores()))
    flags = os.environ.get("XLA_FLAGS", "")
    if "host_platform_device_count" not in flags:
        count = f"--xla_force_host_platform_device_count={n_cores()}"
        os.environ["XLA_FLAGS"] = f"{flags} {count}".strip()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_dir))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    if find_spec("libtpu") and not has_accelerator():
        # A TPU's compiler without a TPU: jax would look for one for seconds, and complain.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")


def has_accelerator() -> bool:
    """Whether jax would look for anything but a CPU and find it, told without importing it.

    libtpu alone says nothing: it may be there to compile only (train.aot).
    """
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms != "cpu"
    if entry_points(group="jax_plugins") or find_spec("jax_plugins"):
        return True
    return bool(find_spec("libtpu")) and has_tpu_chips()


def has_tpu_chips(dev: Path = Path("/dev")) -> bool:
    """Whether this machine has device files as a TPU's driver makes them."""
    return any(dev.glob("accel*")) or any(dev.glob("vfio/[0-9]*"))


def confine_to_one_core() -> None:
    """One CPU device and a pool of one thread, whatever was set before; before jax is imported."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    flags = [flag for flag in flags if "host_platform_device_count" not in flag]
    os.environ["XLA_FLAGS"] = " ".join([*flags, "--xla_force_host_platform_device_count=1"])
    os.environ["NPROC"] = "1"


def describe(device, kernels_name: str, n_rows: int = 1) -> Runtime:
    """The runtime of a jax device and of a run that is one of `n_rows` in a program."""
    import jax

    is_cpu = device.platform == "cpu"
    name = cpu_name() if is_cpu else device.device_kind
    n_devices = len(jax.local_devices())
    pool = max(int(os.environ.get("NPROC", os.cpu_count() or 1)), n_devices)
    mode = f"{device.platform} kernels={kernels_name}" + (f" pool={pool}" if is_cpu else "")
    mode += f" rows={n_rows}" if n_rows > 1 else ""
    return Runtime(name, mode, jax.__version__, git_commit())


def git_commit() -> str:
    """Commit of the code, '+dirty' if the tree differs from it, 'unknown' outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "unknown"
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty=+dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()


def cpu_name() -> str:
    """What the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
