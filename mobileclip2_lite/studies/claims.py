"""The papers' claims that can be tested at this size: rows, what is measured of them, and what is said of it.

`verdicts` judges them from recorded lines, `ledger` writes them down.
"""

from __future__ import annotations

from typing import NamedTuple

from mobileclip2_lite.studies.rows import CONV, HILLS, SE

ZERO, I2T, T2I = "zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1"
BINDING, RELATIONS = "binding", "relations"
MEASURES = {
    ZERO: "zero-shot",
    I2T: "image to text",
    T2I: "text to image",
    BINDING: "binding",
    RELATIONS: "relations",
}
BETTER, WORSE, SAME, NO_BETTER = "better", "worse", "same", "no better"
"""What a claim says of its first row, compared with its second."""


class Claim(NamedTuple):
    """Rows, and what is claimed of them."""

    text: str
    """In words."""
    source: str
    """Who says it."""
    first: str
    """Row whose measure is looked at."""
    second: str
    """Row that is taken from it, or that takes more samples or seconds; empty for a law."""
    measure: str = ZERO
    """Of the evaluation."""
    says: str = BETTER
    """`better`, `worse`, `same` or `no better`."""
    kind: str = "difference"
    """How it is measured: one of `verdicts.KINDS`."""
    fitted: tuple[str, ...] = ()
    """Rows that a law is fitted to, where the first is held back."""


PAPER, FIRST, OURS = "MobileCLIP2", "MobileCLIP", "ours"


def _both(text: str, source: str, first: str, second: str, says: str = BETTER) -> list[Claim]:
    return [Claim(text, source, first, second, measure, says) for measure in (ZERO, I2T)]


PLAIN_16 = "student, full, 16 dimensions"
SUM, ALONE, ACID = "+ ensemble", "synthetic alone", "control, ACID"
"""The student of the rows, which has all that is compared: both teachers, three captioners, the sum of both losses."""

CLAIMS: tuple[Claim, ...] = (
    *_both(
        "A reinforced student beats plain training on the same pairs and samples (the recipe's length)",
        FIRST,
        "student, full",
        "control, full",
    ),
    *_both(
        "A reinforced student beats plain training on the same pairs and samples (half)", FIRST, "+ ensemble", "control"
    ),
    *_both("It beats plain training of twice its samples", FIRST, "+ ensemble", "control, full"),
    *_both(
        "It beats plain training that also has the captioners' annotated pairs",
        OURS,
        "+ ensemble",
        "control + annotated pairs",
    ),
    *_both("It beats plain training that also has the student's captions", OURS, "+ ensemble", "+ captions"),
    *_both(
        "Captions of a captioner that saw no clean caption help plain training",
        OURS,
        "control + web captions",
        "control",
    ),
    *_both("Synthetic captions help plain training", FIRST, "+ captions", "control"),
    *_both("Distillation adds to captions", FIRST, "+ distillation", "+ captions"),
    *_both("An ensemble is better than its first teacher", FIRST, "+ ensemble", "+ distillation"),
    *_both("An ensemble is better than its second teacher", FIRST, "+ ensemble", "teacher se only"),
    *_both("Synthetic captions help distillation", FIRST, "+ ensemble", "no captions"),
    Claim("λ = 1 is best for zero-shot (against 0.7)", FIRST, "lambda 1", "+ ensemble", ZERO),
    Claim("λ = 0.7 is better for retrieval than 1", FIRST, "+ ensemble", "lambda 1", I2T),
    *_both(
        "A contrast gated by the teachers' belief beats the same λ without", OURS, "lambda 0.7, gated", "+ ensemble"
    ),
    *(
        Claim("Captions made wrong in one place teach what belongs to what", OURS, "hard negatives", "+ ensemble", part)
        for part in (BINDING, RELATIONS)
    ),
    Claim("They cost no retrieval", OURS, "hard negatives", "+ ensemble", I2T, SAME),
    Claim(
        "A fine-tuned captioner is no better than its pretrained one for zero-shot",
        PAPER,
        "captions: short",
        "captions: pretrained",
        ZERO,
        NO_BETTER,
    ),
    Claim(
        "A fine-tuned captioner is better than its pretrained one for retrieval",
        PAPER,
        "captions: short",
        "captions: pretrained",
        I2T,
    ),
    *_both("Several captioners are no better than one", PAPER, "+ ensemble", "captions: short", NO_BETTER),
    *_both("Five stored views are better than one", FIRST, "+ ensemble", "views 1"),
    *_both("More than two stored views add little", FIRST, "+ ensemble", "views 2", NO_BETTER),
    Claim(
        "Crops from half of the image instead of nine tenths hurt plain training",
        OURS,
        "control, stored views",
        "control",
        ZERO,
        WORSE,
    ),
    *_both("int8 embeddings teach as well as bf16", OURS, "int8", "+ ensemble", SAME),
    *_both("int6 embeddings teach as well as bf16", OURS, "int6", "+ ensemble", SAME),
    *(
        Claim(
            f"{name.removeprefix('lite-teacher-')}: logit scale {better} teaches better than {worse}",
            PAPER,
            f"{name} at {better}",
            f"{name} at {worse}",
        )
        for name in (CONV, SE)
        for better, worse in ((20, 1), (20, 5), (20, 80), (20, 160))
    ),
    *(
        Claim(
            f"{said}: logit scale 20 still teaches better than {worse}",
            OURS,
            HILLS[label][20],
            HILLS[label][worse],
        )
        for label, said in (
            ("conv, batch 32", "A batch of 32 instead of 128"),
            ("conv, filtered pairs", "Fewer wrong texts"),
            ("weak teacher", "A weaker teacher"),
        )
        for worse in (5, 80)
    ),
    *_both("Orthogonalised updates (nmuon) beat AdamW for the student", OURS, "+ ensemble", "student, AdamW"),
    *_both("Orthogonalised updates (nmuon) beat AdamW for the control", OURS, "control", "control, AdamW"),
    *_both("A DFN-filtered web makes a better student", PAPER, "student, filtered", "+ ensemble"),
    *_both("A DFN-filtered web makes plain training better", PAPER, "control, filtered", "control"),
    *_both(
        "Summing the losses of real and synthetic captions beats drawing one of them", FIRST, SUM, "one of two texts"
    ),
    *_both("The sum beats synthetic captions alone", FIRST, SUM, ALONE),
    Claim("Synthetic captions alone are worse for zero-shot than real ones", FIRST, ALONE, "no captions", ZERO, WORSE),
    Claim("Synthetic captions alone are better for retrieval than real ones", FIRST, ALONE, "no captions", I2T),
    *_both("One logit scale of 100 for both teachers is worse than each its own", PAPER, "one scale, 100", SUM, WORSE),
    Claim(
        "One scale of 20 for both is as good as each its own (22.1 and 21.0)", OURS, "one scale, 20", SUM, ZERO, SAME
    ),
    *_both(
        "The more accurate teacher (conv) is not the better one", PAPER, "+ distillation", "teacher se only", NO_BETTER
    ),
    *_both("Strong augmentation hurts without distillation", FIRST, "captions, strong views", "+ captions", WORSE),
    *_both("Strong augmentation helps with distillation", FIRST, "student, strong views", SUM),
    *_both("Stored embeddings teach as well as teachers that run along", FIRST, SUM, "live teachers", SAME),
    Claim("A training from stored embeddings takes fewer seconds", FIRST, SUM, "live teachers", kind="live"),
    Claim(
        "What plain training reaches, a student reaches with fewer samples", FIRST, SUM, "control, full", kind="samples"
    ),
    Claim(
        "What plain training on captions reaches, a student reaches with fewer samples",
        FIRST,
        SUM,
        "+ captions",
        kind="samples",
    ),
    Claim(
        "What plain training on captions reaches, a student reaches in less training time",
        FIRST,
        SUM,
        "+ captions",
        kind="seconds",
    ),
    Claim(
        "It does so in less time with captions and reinforcement counted", OURS, SUM, "+ captions", kind="all seconds"
    ),
    Claim(
        "It does so in less time where ten trainings share their price", OURS, SUM, "+ captions", kind="shared seconds"
    ),
    *_both(
        "Selecting by learnability (ACID) helps plain training, at equal trained samples",
        OURS,
        ACID,
        "control, stored views",
    ),
    *_both(
        "Selecting by learnability alone is as good as distillation (both on real texts)",
        OURS,
        ACID,
        "no captions",
        SAME,
    ),
    *_both("Selecting by learnability (ACID) helps the student, at equal trained samples", OURS, "ACID", SUM),
    *_both("Selecting by learnability (ACID) helps the student, at equal candidates", OURS, "ACID, half", SUM),
    *_both("A larger student of the ensemble teaches better than the ensemble (EUPE)", OURS, "proxy teacher", SUM),
    Claim(
        "Without a loss on them, the first 16 of 128 dimensions find less", OURS, PLAIN_16, "student, full", T2I, WORSE
    ),
    Claim("A loss on the first dimensions makes 16 of them find more", OURS, "nested, 16 dimensions", PLAIN_16, T2I),
    Claim("It costs whole embeddings no retrieval", OURS, "nested", "student, full", T2I, SAME),
    *_both("The gain is there for a larger student", FIRST, "student, lite-mci-m", "control, lite-mci-m"),
    Claim(
        "A law of samples fitted to the shorter trainings says the longest",
        OURS,
        "student, full",
        "",
        says=SAME,
        kind="law of samples",
        fitted=("student, 5,000 samples", "student, 10,000 samples", SUM),
    ),
    Claim(
        "A law of pairs fitted to the smaller sets says the largest",
        OURS,
        "student, 4,000 pairs",
        "",
        says=SAME,
        kind="law of pairs",
        fitted=("student, 500 pairs", "student, 1,000 pairs", SUM),
    ),
)
"""The claims, in the order of the ledger."""
