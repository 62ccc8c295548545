"""The papers' claims that can be tested at this size, and ours: what `ledger` writes down, in its order.

`verdicts` judges them from recorded lines.
"""

from __future__ import annotations

from mobileclip2_lite.studies.claim import (
    ABSTRACT,
    BETTER,
    BINDING,
    CAPTIONERS,
    COMPONENTS,
    DATA,
    EFFICIENCY,
    LADDER,
    LAMBDA,
    NO_BETTER,
    OURS,
    RELATIONS,
    SAME,
    SATURATION,
    STRONG,
    TEACHERS,
    TEXTS,
    TIMES,
    WORSE,
    ZERO,
    Claim,
    both,
)
from mobileclip2_lite.studies.effects import RETRIEVAL
from mobileclip2_lite.studies.rows import CONV, HILLS, SE

PLAIN_16 = "student, full, 16 dimensions"
SUM, ALONE, ACID, CAPTIONED = "+ ensemble", "synthetic alone", "control, ACID", "+ captions"
"""The student of the rows has all that is compared: both teachers, three captioners, the sum of both losses."""
ANNOTATED, ONE_CAPTIONER, THREE = "control + annotated pairs", "captions: short", "captions: short, 3 each"
OTHER_RATE = "rate and views differ, too"
SCORER = "the scorer has read 8,000 clean pairs"

_HEADLINE = (
    *both(
        "A reinforced student beats plain training on the same pairs and samples (the recipe's length)",
        COMPONENTS,
        "student, full",
        "control, full",
        theirs=(17.2, 30.2),
    ),
    *both(
        "A reinforced student beats plain training on the same pairs and samples (half)",
        COMPONENTS,
        SUM,
        "control",
        theirs=(17.2, 30.2),
    ),
    *both("It beats plain training of twice its samples", OURS, SUM, "control, full"),
    *both("It beats plain training that also has the captioners' annotated pairs", OURS, SUM, ANNOTATED),
    *both("It beats plain training that also has the student's captions", OURS, SUM, CAPTIONED),
    *both("The gain is there for a larger student", OURS, "student, lite-mci-m", "control, lite-mci-m"),
)
_LADDER = (
    *both(
        "Captions of a captioner that saw no clean caption help plain training",
        OURS,
        "control + web captions",
        "control",
    ),
    *both("Synthetic captions help plain training", COMPONENTS, CAPTIONED, "control", theirs=(7.4, 27.5)),
    Claim("Distillation adds to captions", COMPONENTS, "+ distillation", CAPTIONED, theirs=2.6, note=OTHER_RATE),
    Claim(
        "Distillation of one teacher costs captions some retrieval",
        COMPONENTS,
        "+ distillation",
        CAPTIONED,
        RETRIEVAL,
        WORSE,
        theirs=-3.2,
        note=OTHER_RATE,
    ),
    *both("Distillation is worth it where nothing else differs (λ = 0.7 against 0)", OURS, SUM, "lambda 0"),
    *both("An ensemble is better than its first teacher", COMPONENTS, SUM, "+ distillation", theirs=(2.4, 1.5)),
    *both("An ensemble is better than its second teacher", TEACHERS, SUM, "teacher se only", theirs=(0.7, 1.2)),
    *both("Synthetic captions help distillation", TEXTS, SUM, "no captions", theirs=(5.3, 15.0)),
    *both("A DFN-filtered web makes a better student", LADDER, "student, filtered", SUM, BETTER, (1.5, 0.5), SCORER),
    Claim(
        "A DFN-filtered web makes plain training better", DATA, "control, filtered", "control", theirs=5.3, note=SCORER
    ),
    Claim(
        "A DFN-filtered web makes plain training better", OURS, "control, filtered", "control", RETRIEVAL, note=SCORER
    ),
)
_LOSS = (
    Claim("λ = 1 is best for zero-shot (against 0.7)", LAMBDA, "lambda 1", SUM, ZERO, theirs=1.0),
    Claim("λ = 0.7 is better for retrieval than 1", LAMBDA, SUM, "lambda 1", RETRIEVAL, theirs=2.2),
    *both("A contrast gated by the teachers' belief beats the same λ without", OURS, "lambda 0.7, gated", SUM),
    *(
        Claim("Captions made wrong in one place teach what belongs to what", OURS, "hard negatives", SUM, part)
        for part in (BINDING, RELATIONS)
    ),
    Claim("They cost no retrieval", OURS, "hard negatives", SUM, RETRIEVAL, SAME),
    *both(
        "Summing the losses of real and synthetic captions beats drawing one of them",
        TEXTS,
        SUM,
        "one of two texts",
        theirs=(4.4, 3.4),
    ),
    Claim("The sum beats synthetic captions alone", TEXTS, SUM, ALONE, ZERO, theirs=11.9),
    Claim("The sum is as good as synthetic captions alone", TEXTS, SUM, ALONE, RETRIEVAL, SAME, theirs=-0.2),
    Claim("Synthetic captions alone are worse than real ones", TEXTS, ALONE, "no captions", ZERO, WORSE, theirs=-6.6),
    Claim("Synthetic captions alone are better than real ones", TEXTS, ALONE, "no captions", RETRIEVAL, theirs=15.2),
    *both("Orthogonalised updates (nmuon) beat AdamW at 1e-3 for the student", OURS, SUM, "student, AdamW"),
    *both("Orthogonalised updates (nmuon) beat AdamW at 3e-3 for the student", OURS, SUM, "student, AdamW 3e-3"),
    *both("Orthogonalised updates (nmuon) beat AdamW for the control", OURS, "control", "control, AdamW"),
)
_CAPTIONS = (
    Claim(
        "A fine-tuned captioner is no better than its pretrained one for zero-shot",
        CAPTIONERS,
        ONE_CAPTIONER,
        "captions: pretrained",
        ZERO,
        NO_BETTER,
        theirs=0.0,
    ),
    Claim(
        "A fine-tuned captioner is better than its pretrained one for retrieval",
        CAPTIONERS,
        ONE_CAPTIONER,
        "captions: pretrained",
        RETRIEVAL,
        theirs=6.7,
    ),
    *both("Several captioners add to one (three, a caption each, against three of one)", ABSTRACT, SUM, THREE),
    *both("Several captioners are no better than one", CAPTIONERS, SUM, THREE, NO_BETTER, (0.1, -0.3)),
    *both("Three captions by three captioners are better than one by one", OURS, SUM, ONE_CAPTIONER),
    *both("Two captions of a captioner are better than one", SATURATION, "captions: short, 2 each", ONE_CAPTIONER),
    *both(
        "A third caption of the same captioner adds nothing", SATURATION, THREE, "captions: short, 2 each", NO_BETTER
    ),
)
_VIEWS = (
    *both("Five stored views are better than one", SATURATION, SUM, "views 1"),
    *both("More than two stored views add nothing", OURS, SUM, "views 2", NO_BETTER),
    Claim(
        "Crops from half of the image instead of nine tenths hurt plain training",
        OURS,
        "control, stored views",
        "control",
        ZERO,
        WORSE,
    ),
    Claim(
        "Strong augmentation hurts without distillation",
        STRONG,
        "captions, strong views",
        CAPTIONED,
        ZERO,
        WORSE,
        theirs=-3.8,
        note="stored against fresh views, too",
    ),
    *both(
        "Strong augmentation helps with distillation",
        COMPONENTS,
        "student, strong views",
        SUM,
        BETTER,
        (4.8, 4.4),
        "pictures of 48 pixels",
    ),
    *both("int8 embeddings teach as well as bf16", OURS, "int8", SUM, SAME),
    *both("int6 embeddings teach as well as bf16", OURS, "int6", SUM, SAME),
    *both("Stored embeddings teach as well as teachers that run along", OURS, SUM, "live teachers", SAME),
)
_TEACHERS = (
    *(
        Claim(
            f"{name.removeprefix('lite-teacher-')}: logit scale 20 teaches better than {worse}",
            TEACHERS if worse > 20 else OURS,  # a tuned scale below that of trained CLIPs; the other side is ours
            f"{name} at 20",
            f"{name} at {worse}",
        )
        for name in (CONV, SE)
        for worse in (1, 5, 80, 160)
    ),
    *(
        Claim(f"{said}: logit scale 20 still teaches better than {worse}", OURS, HILLS[label][20], HILLS[label][worse])
        for label, said in (
            ("conv, batch 32", "A batch of 32 instead of 128"),
            ("conv, filtered pairs", "Fewer wrong texts"),
            ("weak teacher", "A weaker teacher"),
        )
        for worse in (5, 80)
    ),
    *both("One logit scale of 100 for both teachers is worse than their own", TEACHERS, "one scale, 100", SUM, WORSE),
    Claim(
        "One scale of 20 for both is as good as each its own (22.1 and 21.0)", OURS, "one scale, 20", SUM, ZERO, SAME
    ),
    *both(
        "The more accurate teacher (conv, 95.5 % against 90.2) is not the better one",
        TEACHERS,
        "+ distillation",
        "teacher se only",
        NO_BETTER,
        (-1.5, -2.1),
    ),
    *both("A larger student of the ensemble teaches better than the ensemble (EUPE)", OURS, "proxy teacher", SUM),
)
_PRICE = (
    Claim("Training from stored embeddings takes fewer seconds", TIMES, SUM, "live teachers", kind="live", theirs=3.2),
    Claim(
        "What plain training reaches, a student reaches with fewer samples",
        EFFICIENCY,
        SUM,
        "control, full",
        kind="samples",
        theirs=10.0,
    ),
    *(
        Claim(
            f"What plain training{data} reaches, a student reaches {price}",
            OURS,
            SUM,
            row,
            ZERO,
            BETTER,
            f"{kind}seconds",
        )
        for data, row in (("", "control, full"), (" on captions", CAPTIONED))
        for price, kind in (
            ("in less training time", ""),
            ("in less time with captions and reinforcement counted", "all "),
            ("in less time where ten trainings share their price", "shared "),
        )
    ),
    Claim(
        "What plain training on captions reaches, a student reaches with fewer samples",
        OURS,
        SUM,
        CAPTIONED,
        kind="samples",
    ),
)
_FINDINGS = (
    *both(
        "Selecting by learnability (ACID) helps plain training, at equal trained samples",
        OURS,
        ACID,
        "control, stored views",
    ),
    *both(
        "Selecting by learnability alone is as good as distillation (both on real texts)",
        OURS,
        ACID,
        "no captions",
        SAME,
    ),
    *both("Selecting by learnability (ACID) helps the student, at equal trained samples", OURS, "ACID", SUM),
    *both("Selecting by learnability (ACID) helps the student, at equal candidates", OURS, "ACID, half", SUM),
    Claim(
        "Without a loss on them, the first 16 of 128 dimensions find less",
        OURS,
        PLAIN_16,
        "student, full",
        RETRIEVAL,
        WORSE,
    ),
    Claim(
        "A loss on the first dimensions makes 16 of them find more", OURS, "nested, 16 dimensions", PLAIN_16, RETRIEVAL
    ),
    Claim("It costs whole embeddings no retrieval", OURS, "nested", "student, full", RETRIEVAL, SAME),
)
_LAWS = (
    Claim(
        "A law of samples fitted to the shorter trainings says the longest",
        OURS,
        "student, full",
        "",
        says=SAME,
        kind="law of samples",
        fitted=("student, 10,000 samples", "student, 14,000 samples", SUM, "student, 28,000 samples"),
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

CLAIMS: tuple[Claim, ...] = (
    *_HEADLINE, *_LADDER, *_LOSS, *_CAPTIONS, *_VIEWS, *_TEACHERS, *_PRICE, *_FINDINGS, *_LAWS,
)  # fmt: skip
"""The claims, in the order of the ledger."""
