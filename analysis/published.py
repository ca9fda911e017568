"""Published constants, each with its citation; nothing here is ours.

Where a paper prints a rounded number and its source or another paper a longer one, the longer one
stands here. Values called "reference" were computed independently of this project on the points
of the paper, to more digits than any paper prints.
"""

import math
from dataclasses import dataclass

from model.config import ModelConfig


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


# Kaplan et al. 2020, arXiv:2001.08361. N counts no embeddings; compute is in PF-days.
KAPLAN_2020 = "arXiv:2001.08361"
KAPLAN_2020_ND = PublishedLaw(
    "kaplan",
    {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
    f"{KAPLAN_2020}, table 2",
)
KAPLAN_2020_NS = PublishedLaw(
    "kaplan_ns",
    {"N_c": 6.5e13, "S_c": 2.1e3, "alpha_N": 0.077, "alpha_S": 0.76},
    f"{KAPLAN_2020}, table 3",
)
KAPLAN_2020_BATCH = PublishedLaw(
    "b_crit", {"B_star": 2.1e8, "alpha_B": 0.21}, f"{KAPLAN_2020}, eq. 1.4 and table 5"
)
KAPLAN_2020_OPTIMA = {  # coefficient and exponent of C_min in PF-days; table 6
    "N": (1.3e9, 0.73),  # parameters
    "B": (2.0e6, 0.24),  # tokens
    "S": (5.4e3, 0.03),  # steps, the fewest
    "D": (2.0e10, 0.27),  # tokens
}
KAPLAN_2020_ALPHA_C_MIN = 0.052  # eq. B.7
KAPLAN_2020_ALPHA_C_MIN_TEXT = 0.054  # main text
KAPLAN_2020_ABOVE_CONVERGENCE = 0.10  # relative excess loss at the optimum; app. B
KAPLAN_2020_NEAR_OPTIMAL = (0.6, 2.2)  # of the optimal size, at 20% more compute; app. B.4
KAPLAN_2020_NEAR_OPTIMAL_COST = 1.2
KAPLAN_2020_OVERFIT_FREE = (5e3, 0.74)  # D >= 5e3 N^0.74; eq. 4.4
KAPLAN_2020_OVERFIT = 0.02  # relative excess loss that eq. 4.4 allows; sec. 4
KAPLAN_2020_SIZES = (768.0, 1.5e9)  # smallest and largest N; sec. 3
FLOPS_PER_PF_DAY = 8.64e19  # sec. 1.3

# Hoffmann et al. 2022, arXiv:2203.15556. N counts all parameters.
HOFFMANN_2022 = "arXiv:2203.15556"
HOFFMANN_2022_UNROUNDED = PublishedLaw(
    "chinchilla",
    {
        "E": math.exp(0.5267228),
        "A": math.exp(6.0073404),
        "B": math.exp(6.0179186),
        "alpha": 0.33917084,
        "beta": 0.2849083,
    },
    "Hoffmann et al. 2022, arXiv:2203.15556, constants in the source of the paper",
)
HOFFMANN_2022_ROUNDED = PublishedLaw(
    "chinchilla",
    {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
    f"{HOFFMANN_2022}, eq. 10",
)
HOFFMANN_2022_APPROACH_3 = {"a": 0.46, "b": 0.54}  # table 2
HOFFMANN_2022_APPROACH_1_A = 0.50  # table 2
HOFFMANN_2022_TABLE_3 = (  # N, D*, half a unit of D's last printed digit
    (0.4e9, 8.0e9, 0.05e9),
    (1e9, 20.2e9, 0.05e9),
    (10e9, 205.1e9, 0.05e9),
    (67e9, 1.5e12, 0.05e12),
    (175e9, 3.7e12, 0.05e12),
    (280e9, 5.9e12, 0.05e12),
    (520e9, 11e12, 0.5e12),
    (1e12, 21.2e12, 0.05e12),
    (10e12, 216.2e12, 0.05e12),
)
HOFFMANN_2022_N_MODELS = 50  # table A9
HOFFMANN_2022_BUDGETS = (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21)  # FLOPs; fig. 3
HOFFMANN_2022_VOCAB_SIZE, HOFFMANN_2022_SEQ_LEN = 32_000, 2048


def chinchilla_config(
    d_model: int, d_ff: int, d_head: int, n_heads: int, n_layers: int
) -> ModelConfig:
    """A row of table A9 of Hoffmann et al. 2022; its relative positions are not in ModelConfig."""
    return ModelConfig(
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_head=d_head,
        d_ff=d_ff,
        vocab_size=HOFFMANN_2022_VOCAB_SIZE,
        seq_len=HOFFMANN_2022_SEQ_LEN,
        position="rotary",
    )


HOFFMANN_2022_TABLE_A4 = (  # shape (table A9), FLOPs of appendix F over 6ND
    ("74M", chinchilla_config(640, 2560, 64, 10, 10), 1.025),
    ("306M", chinchilla_config(1024, 4096, 64, 16, 20), 1.101),
)
HOFFMANN_2022_OBJECTIVE = 1.2312e-3  # reference: Huber 1e-3 on Besiroglu's 240 points

# Besiroglu et al. 2024, arXiv:2404.10102: 240 of 245 points read off figure 4 of Hoffmann.
BESIROGLU_2024 = "arXiv:2404.10102"
BESIROGLU_2024_LAW = PublishedLaw(
    "chinchilla",
    {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
    f"{BESIROGLU_2024}, refitted constants",
)
BESIROGLU_2024_A = 0.513
BESIROGLU_2024_N_POINTS = (245, 240)
BESIROGLU_2024_HUBER = {  # reference: optimum of Huber 1e-3
    "E": 1.81722, "A": 477.83, "B": 2143.4, "alpha": 0.34731, "beta": 0.36717, "a": 0.5139,
}  # fmt: skip
BESIROGLU_2024_HUBER_OBJECTIVE = 1.01827402e-3
BESIROGLU_2024_LAD = {  # reference: delta towards 1e-6
    "E": 1.81684, "A": 481.93, "B": 2085.0, "alpha": 0.34780, "beta": 0.36584,
}  # fmt: skip
BESIROGLU_2024_SD = {"alpha": 0.0146, "beta": 0.0208, "a": 0.0193, "E": 0.0261}  # reference
BESIROGLU_2024_N_BOOTSTRAP = 1000

# Porian et al. 2024, arXiv:2406.19146: RefinedWeb, exponent a of N* ~ C^a with 95% interval.
PORIAN_2024 = "arXiv:2406.19146"
PORIAN_2024_LADDER = (  # step, configuration of the points, a, interval, a by parabolas (reference)
    ("as Kaplan", "rw/base/long/kaplan/kaplan/train", 0.835, (0.824, 0.846), 0.859),
    ("+ last-layer FLOPs", "rw/base/long/kaplan/standard/val", 0.707, (0.692, 0.717), 0.685),
    ("+ warm-up fixed", "rw/base/short/kaplan/standard/val", 0.602, (0.591, 0.617), 0.600),
    ("+ cosine matched", "rw/base/short/chinchilla/standard/val", 0.572, (0.560, 0.589), 0.555),
    ("+ tuned", "rw/tuned/short/const/standard/val", 0.497, (0.491, 0.505), 0.495),
    ("+ last-layer, attention", "rw/base/long/kaplan/attention/train", 0.717, None, None),
    ("+ warm-up, attention", "rw/base/short/kaplan/attention/train", 0.622, None, None),
    ("+ cosine, attention", "rw/base/short/chinchilla/attention/train", 0.577, None, None),
    ("+ tuned, attention", "rw/tuned/short/const/attention/train", 0.505, None, None),
)
PORIAN_2024_N_POINTS, PORIAN_2024_N_OPTIMA = 1164, 118
PORIAN_2024_WINDOW = 0.05  # of the lowest loss, for the parabolas

# Pearce & Song 2024, arXiv:2406.12907: N_total = N + 47491 N^(1/3), N without embeddings.
PEARCE_2024 = "arXiv:2406.12907"
PEARCE_2024_EMBEDDING = 47491.0
PEARCE_2024_A = {"Besiroglu": 0.7805, "Hoffmann": 0.7388}  # reference digits; printed 0.78, 0.74

# Muennighoff et al. 2023, arXiv:2305.16264: 182 runs on C4, alpha = beta.
MUENNIGHOFF_2023 = "arXiv:2305.16264"
MUENNIGHOFF_2023_N_RUNS = 182
MUENNIGHOFF_2023_LAW = PublishedLaw(
    "data_constrained",
    {
        "E": math.exp(0.6254804),
        "A": math.exp(6.255414),
        "B": math.exp(7.3049974),
        "alpha": 0.3526596,
        "R_D": 15.387756,
        "R_N": 5.309743,
    },
    f"{MUENNIGHOFF_2023}, constants in the published code",
)
MUENNIGHOFF_2023_OBJECTIVE = 0.0158259353  # reference: Huber 1e-3, sum over runs
MUENNIGHOFF_2023_R2 = 0.7722046  # of losses
MUENNIGHOFF_2023_R2_WITHOUT_REPETITION = 0.4451684
MUENNIGHOFF_2023_RIDGE = (95.4, 1.706, 0.0158047)  # R_D*, R_N*, objective; reference
MUENNIGHOFF_2023_BOOTSTRAP = (7.4, 48.0, 3000.0)  # 10, 50, 90% of R_D*; reference

# Gadre et al. 2024, arXiv:2403.08540: five small runs on RedPajama predict two larger ones.
GADRE_2024 = "arXiv:2403.08540"
GADRE_2024_N_RUNS = 104
GADRE_2024_FITTED = (
    "rpj-d=96_l=8_h=4-1.0",
    "rpj-d=96_l=8_h=4-16.0",
    "rpj-d=512_l=8_h=4-1.0",
    "rpj-d=576_l=24_h=8-1.0",
    "rpj-d=1024_l=24_h=8-1.0",
)
GADRE_2024_PREDICTED = (  # label, run, relative error of its C4 loss; reference digits
    ("1.4B at M=640", "rpj-open_lm_1b-32.0", 0.007103),
    ("6.9B at M=20", "rpj-open_lm_7b-1.0", 0.007320),
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
