"""Settings every test runs under, and the smallest model worth testing."""

import os

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

TYPECHECKED = ("model", "train", "analysis")

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
    if config.getoption("--typecheck"):
        import jaxtyping

        jaxtyping.install_import_hook(TYPECHECKED, "beartype.beartype")


@pytest.fixture(scope="session")
def tiny():
    """A model whose axes differ in size, so that swapped axes fail."""
    from model.config import ModelConfig

    return ModelConfig(
        n_layers=2, d_model=16, n_heads=2, d_head=8, d_ff=64, vocab_size=17, seq_len=12
    )
