"""The tokens of a generated language as text, both ways: letters, brackets, numbers."""

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from train.data.languages.base import Language

_SHOWN = 12


@dataclass(frozen=True)
class SymbolTokenizer:
    """Reads and writes a language as `Language.render` does.

    `first` are the tokens that a sample of it begins with: what to continue if nothing is given.
    """

    name: str
    language: Language
    first: np.ndarray

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return self.language.vocab_size

    @property
    def prompt(self) -> str:
        """The first tokens as text."""
        return self.decode(self.first)

    def decode(self, tokens: np.ndarray) -> str:
        """Tokens as a person reads them."""
        return self.language.render(np.asarray(tokens))

    def encode(self, text: str) -> np.ndarray:
        """Tokens of a text: int32 of shape (n_tokens,). White space that is none is passed over.

        The longest symbol is taken at each place.

        Raises: ValueError: something in the text is no symbol of the language.
        """
        tokens, place = [], 0
        while place < len(text):
            found = self._pattern.match(text, place)
            if found is not None:
                tokens.append(self._chosen(self._by_spelling[found.group()], tokens))
                place = found.end()
            elif text[place].isspace():
                place += 1
            else:
                raise ValueError(
                    f"prompt={text!r}: {text[place:].split()[0]!r} begins with no symbol of "
                    f"{self.name}; use such as {self.prompt!r} (symbols: {self._some_symbols})"
                )
        return np.array(tokens, np.int32)

    def _chosen(self, alike: list[int], before: list[int]) -> int:
        # Only `skills` writes tokens alike: its bits by place, then, after a question, the answer.
        place = len(before) % (len(alike) + 1)
        return alike[min(place, len(alike) - 1)]

    @cached_property
    def _by_spelling(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for token in range(self.vocab_size):
            text = self.decode(np.array([token]))
            found.setdefault(text.strip() or text, []).append(token)
        return found

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._by_spelling, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)))

    @property
    def _some_symbols(self) -> str:
        symbols = list(self._by_spelling)
        return " ".join(map(repr, symbols[:_SHOWN])) + (" ..." if len(symbols) > _SHOWN else "")
