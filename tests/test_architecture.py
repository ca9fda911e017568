"""Rules that no single package can hold: who imports whom, and what is never there."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("model", "train", "analysis", "experiments", "launch")

# What a module within the key may import of this project; the longest key counts.
ALLOWED = {
    "model": ("model",),
    "train": ("train", "model"),
    "train.data": ("train.data",),
    "analysis": ("analysis", "train.columns", "train.records", "model.config", "model.accounting"),
    "experiments": ("experiments", "analysis", "train", "model"),
    "launch": ("experiments", "analysis", "train", "model"),
}
WITHOUT_JAX = (
    "model.config", "model.accounting", "model.ladders", "train.columns", "train.records",
    "train.config", "train.jobs", "train.lease", "train.outcomes",
)  # fmt: skip
PICKLE_MODULES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}
PICKLE_METHODS = {"read_pickle", "to_pickle"}

MACHINE_PATH = re.compile(r"(?<![\w.\-])/(?:work|root|home|tmp|opt|mnt|Users)/")
INDEX_HOST = re.compile(r"\bpypi\.org|pythonhosted\.org|--(?:extra-)?index-url")


def python_files(*names: str) -> list[Path]:
    """Every Python file of these packages; a name may also be a single module."""
    patterns = [pattern for name in names for pattern in (f"{name}.py", f"{name}/**/*.py")]
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, lazily or not: `from a import b` gives a.b."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def foreign_imports(path: Path) -> list[str]:
    """Imports from this project that the file's package does not allow."""
    module = module_name(path)
    package = max((key for key in ALLOWED if within(module, key)), key=len)
    ours = (name for name in imported_names(path) if name.split(".")[0] in (*PACKAGES, "tests"))
    return [name for name in ours if not any(within(name, prefix) for prefix in ALLOWED[package])]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def test_every_package_has_files():
    names = {module_name(path).split(".")[0] for path in python_files(*PACKAGES)}
    assert names >= set(PACKAGES)


def test_imports_point_one_way():
    wrong = {
        module_name(path): foreign
        for path in python_files(*PACKAGES)
        if (foreign := foreign_imports(path))
    }
    assert not wrong


def test_flax_stays_in_the_model():
    wrong = [
        module_name(path)
        for path in python_files("train", "analysis", "experiments")
        if any(within(name, "flax") for name in imported_names(path))
    ]
    assert not wrong


@pytest.mark.parametrize("module", WITHOUT_JAX)
def test_imports_without_jax(module):
    done = run_python("-c", f"import sys, {module}; sys.exit('jax' in sys.modules)")
    assert done.returncode == 0, done.stderr or f"{module} imports jax"


def test_help_without_jax():
    """A name bound to None in sys.modules makes its import fail."""
    code = (
        "import runpy, sys; sys.modules['jax'] = None; sys.argv = ['launch.py', '--help'];"
        "runpy.run_path('launch.py', run_name='__main__')"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "launch.py run quickstart" in done.stdout


def test_nothing_is_pickled():
    wrong = []
    for path in python_files(*PACKAGES, "tests", "benchmarks"):
        if any(name.split(".")[0] in PICKLE_MODULES for name in imported_names(path)):
            wrong.append(path.name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            method = isinstance(node, ast.Attribute) and node.attr in PICKLE_METHODS
            allowed = isinstance(node, ast.keyword) and node.arg == "allow_pickle"
            if method or (allowed and not _is_false(node.value)):
                wrong.append(f"{path.name}:{node.lineno}")
    assert not wrong


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def project_texts() -> list[Path]:
    folders = [f"{name}/**/*" for name in (*PACKAGES, "tests", "benchmarks", "docs", ".ci")]
    top = ["*.py", "*.md", "*.toml", "Makefile", "requirements.txt", ".pre-commit-config.yaml"]
    found = [path for pattern in (*folders, *top) for path in sorted(ROOT.glob(pattern))]
    binary = {".pyc", ".png", ".pdf", ".svg", ".safetensors", ".parquet"}
    return [path for path in found if path.is_file() and path.suffix not in binary]


def test_no_machine_path_or_index_host():
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in project_texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line) or INDEX_HOST.search(line)
    ]
    assert not wrong
