"""Generated languages whose entropy is known exactly: the floor that a trained model must reach."""

from train.data.languages.base import Language, floor_nats
from train.data.languages.corpus import as_corpus
from train.data.languages.markov import MarkovSource

__all__ = ["Language", "MarkovSource", "as_corpus", "floor_nats"]
