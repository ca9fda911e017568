"""What the tests of the model share."""

import pytest


@pytest.fixture
def ill_typed(request):
    """For tests that pass a value of the wrong type on purpose."""
    if request.config.getoption("--typecheck"):
        pytest.skip("the type checker refuses the argument before the code under test can")
