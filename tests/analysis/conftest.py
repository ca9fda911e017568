import importlib.util
import sys
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("planted", Path(__file__).parent / "planted.py")
assert _SPEC and _SPEC.loader
planted_module = importlib.util.module_from_spec(_SPEC)
sys.modules["planted"] = planted_module
_SPEC.loader.exec_module(planted_module)

PUBLISHED_DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def published_data():
    """The folder of published points beside the repository."""
    if not PUBLISHED_DATA.is_dir():
        pytest.skip(f"published points are not at {PUBLISHED_DATA.name}/")
    return PUBLISHED_DATA
