"""What each parameter's name says about its training."""

import pytest

from model.functional import abstract_params, flatten
from model.parametrization import lr_multiplier, weight_decay_mask


def test_matrices_decay_and_gains_do_not(tiny):
    for name, leaf in flatten(abstract_params(tiny)).items():
        assert weight_decay_mask(name) == (len(leaf.shape) == 2), name


def test_the_standard_learning_rate_is_the_same_for_all(tiny):
    names = flatten(abstract_params(tiny))
    assert {lr_multiplier(tiny, name, "standard") for name in names} == {1.0}
    with pytest.raises(ValueError, match="parametrization='mup'"):
        lr_multiplier(tiny, "head", "mup")
