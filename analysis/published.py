"""Published constants, each with its citation; nothing here is ours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedLaw:
    """Parameters of a law of analysis.laws as printed in a paper."""

    law: str
    parameters: dict[str, float]
    citation: str


@dataclass(frozen=True)
class PublishedExponent:
    """An exponent a of N* ~ C^a with the paper's interval (low, high), None if none was given."""

    label: str
    a: float
    interval: tuple[float, float] | None
    citation: str


HOFFMANN_2022_UNROUNDED = PublishedLaw(
    "chinchilla",
    # E, A, B are exp of 0.5267228, 6.0073404, 6.0179186 in the paper's source.
    {"E": 1.693374, "A": 406.4010, "B": 410.7228, "alpha": 0.33917084, "beta": 0.2849083},
    "Hoffmann et al. 2022, arXiv:2203.15556, constants in the source of the paper",
)
ALLOCATION_EXPONENTS = (
    PublishedExponent("Kaplan 2020", 0.73, None, "arXiv:2001.08361, table 6"),
    PublishedExponent(
        "Hoffmann 2022, approach 1", 0.50, (0.488, 0.502), "arXiv:2203.15556, table 2"
    ),
    PublishedExponent(
        "Hoffmann 2022, approach 2", 0.49, (0.462, 0.534), "arXiv:2203.15556, table 2"
    ),
    PublishedExponent(
        "Hoffmann 2022, approach 3", 0.46, (0.454, 0.455), "arXiv:2203.15556, table 2"
    ),
    PublishedExponent("Besiroglu 2024", 0.513, None, "arXiv:2404.10102"),
    PublishedExponent("Porian 2024, as Kaplan", 0.835, (0.824, 0.846), "arXiv:2406.19146"),
    PublishedExponent("Porian 2024, corrected", 0.497, (0.491, 0.505), "arXiv:2406.19146"),
)
