"""Losses against naive double loops, the paper's formula, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from mobileclip2_lite.training.captioner_step import next_token_loss
from mobileclip2_lite.training.losses import PairLoss, Rows
from mobileclip2_lite.training.row_losses import ensemble_target

SCALES = {"first": 20.0, "second": 7.0}
DIMENSIONS = {"first": 5, "second": 3}


def unit(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


@pytest.fixture
def batch() -> dict:
    """Student's and two teachers' features of 6 pairs."""
    g = torch.Generator().manual_seed(0)
    names = tuple(SCALES)
    return {
        "image": unit(g, 6, 4),
        "text": unit(g, 6, 4),
        "teacher_image": {n: unit(g, 6, DIMENSIONS[n]) for n in names},
        "teacher_text": {n: unit(g, 6, DIMENSIONS[n]) for n in names},
    }


def alone(tensors: dict) -> dict:
    return {name: Rows.alone(value) for name, value in tensors.items()}


def call(loss: PairLoss, batch: dict, scale: float = 9.0, bias: float | None = None, **changed):
    batch = {**batch, **changed}
    return loss(
        Rows.alone(batch["image"]),
        Rows.alone(batch["text"]),
        torch.tensor(scale, dtype=torch.float64),
        alone(batch["teacher_image"]),
        alone(batch["teacher_text"]),
        None if bias is None else torch.tensor(bias, dtype=torch.float64),
    )


def dot(u, w) -> float:
    return sum(float(a) * float(b) for a, b in zip(u, w, strict=True))


def softmax_row(u, others, scale: float) -> list[float]:
    logits = [scale * dot(u, w) for w in others]
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def naive_contrastive(images, texts, scale: float) -> float:
    n, value = len(images), 0.0
    for i in range(n):
        value -= math.log(softmax_row(images[i], texts, scale)[i]) / (2 * n)
        value -= math.log(softmax_row(texts[i], images, scale)[i]) / (2 * n)
    return value


def naive_distillation(batch: dict, scale: float, scales: dict) -> float:
    """The paper's formula, term by term: 1/(2K) sum_k of two mean KL."""
    n, value = len(batch["image"]), 0.0
    for name, teacher_scale in scales.items():
        u, w = batch["teacher_image"][name], batch["teacher_text"][name]
        for student, teacher in (((batch["image"], batch["text"]), (u, w)), ((batch["text"], batch["image"]), (w, u))):
            for i in range(n):
                p = softmax_row(student[0][i], student[1], scale)
                q = softmax_row(teacher[0][i], teacher[1], teacher_scale)
                value += sum(b * math.log(b / a) for a, b in zip(p, q, strict=True)) / (2 * len(scales) * n)
    return value


def test_contrastive_equals_double_loop(batch):
    loss = call(PairLoss(), batch)
    assert loss.total.item() == pytest.approx(naive_contrastive(batch["image"], batch["text"], 9.0), abs=1e-12)
    assert set(loss.parts) == {"contrastive"}


def test_distillation_equals_the_papers_formula(batch):
    loss = call(PairLoss(tuple(SCALES), SCALES, DIMENSIONS, 1.0), batch)
    assert loss.total.item() == pytest.approx(naive_distillation(batch, 9.0, SCALES), abs=1e-12)


@pytest.mark.parametrize("weight", [0.3, 0.7])
def test_lambda_mixes_both(batch, weight):
    loss = call(PairLoss(tuple(SCALES), SCALES, DIMENSIONS, weight), batch)
    expected = (1 - weight) * naive_contrastive(batch["image"], batch["text"], 9.0)
    expected += weight * naive_distillation(batch, 9.0, SCALES)
    assert loss.total.item() == pytest.approx(expected, abs=1e-12)


def test_one_teacher_equals_official_form(batch):
    """The official trainer's form: torch's KL divergence of each direction's rows, `batchmean`, halved."""
    u, w = batch["teacher_image"]["first"], batch["teacher_text"]["first"]
    value = 0.0
    for logits, teacher in (
        (9 * batch["image"] @ batch["text"].T, 20 * u @ w.T),
        (9 * batch["text"] @ batch["image"].T, 20 * w @ u.T),
    ):
        value += F.kl_div(logits.log_softmax(1), teacher.softmax(1), reduction="batchmean") / 2
    one = {"first": SCALES["first"]}, {"first": DIMENSIONS["first"]}
    only = {k: {"first": batch[k]["first"]} for k in ("teacher_image", "teacher_text")}
    assert call(PairLoss(("first",), *one, 1.0), batch, **only).total.item() == pytest.approx(value.item(), abs=1e-12)


def test_teachers_order_does_not_matter_and_scales_go_by_name(batch):
    forth = call(PairLoss(("first", "second"), SCALES, DIMENSIONS, 1.0), batch).total
    back = call(PairLoss(("second", "first"), SCALES, DIMENSIONS, 1.0), batch).total
    swapped = {"first": SCALES["second"], "second": SCALES["first"]}
    assert forth.item() == pytest.approx(back.item(), abs=1e-12)
    assert abs(forth.item() - call(PairLoss(tuple(SCALES), swapped, DIMENSIONS, 1.0), batch).total.item()) > 1e-3


def test_distillation_is_zero_for_the_teacher_itself(batch):
    only = {k: {"first": batch[k]["first"]} for k in ("teacher_image", "teacher_text")}
    loss = PairLoss(("first",), {"first": 20.0}, {"first": 5}, 1.0)
    itself = {"image": only["teacher_image"]["first"], "text": only["teacher_text"]["first"]}
    assert call(loss, batch, 20.0, **only, **itself).total.item() == pytest.approx(0, abs=1e-12)


def test_targets_are_distributions_both_ways(batch):
    logits = [SCALES[n] * batch["teacher_image"][n] @ batch["teacher_text"][n].T for n in SCALES]
    for matrices in (logits, [matrix.T for matrix in logits]):
        target, negative_entropy = ensemble_target(matrices)
        assert torch.allclose(target.sum(1), torch.ones(6, dtype=torch.float64))
        assert (target >= 0).all()
        assert (negative_entropy <= 0).all()


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("chunk", [0, 4])
def test_gradients_by_finite_differences(batch, form, chunk):
    loss = PairLoss(tuple(SCALES), SCALES, DIMENSIONS, 0.6, form, chunk=chunk)
    inputs = [batch["image"].clone(), batch["text"].clone(), torch.tensor(3.0, dtype=torch.float64)]

    def value(image, text, scale):
        teachers = alone(batch["teacher_image"]), alone(batch["teacher_text"])
        return loss(
            Rows.alone(image), Rows.alone(text), scale, *teachers, torch.tensor(-1.0, dtype=torch.float64)
        ).total

    assert torch.autograd.gradcheck(value, [x.requires_grad_() for x in inputs])


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("chunk", [1, 4, 6, 100])
def test_chunks_change_nothing(batch, form, chunk):
    def value_and_gradients(size):
        image, text = batch["image"].clone().requires_grad_(), batch["text"].clone().requires_grad_()
        scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
        loss = PairLoss(tuple(SCALES), SCALES, DIMENSIONS, 0.6, form, chunk=size)
        teachers = alone(batch["teacher_image"]), alone(batch["teacher_text"])
        total = loss(Rows.alone(image), Rows.alone(text), scale, *teachers).total
        total.backward()
        return total, image.grad, text.grad, scale.grad

    for plain, chunked in zip(value_and_gradients(0), value_and_gradients(chunk), strict=True):
        assert torch.allclose(plain, chunked, rtol=1e-12, atol=1e-14)


def saved_numbers(chunk: int, weight: float) -> int:
    """Numbers in distinct (N, N) or (chunk, N) matrices that the backward pass keeps, N = 64."""
    g, n = torch.Generator().manual_seed(0), 64
    image, text = (unit(g, n, 4).requires_grad_() for _ in range(2))
    teachers = [{k: Rows.alone(unit(g, n, d)) for k, d in DIMENSIONS.items()} for _ in range(2)]
    kept = {}

    def keep(tensor):
        if tensor.numel() >= (chunk or n) * n:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    names = tuple(SCALES) if weight else ()
    pick = (lambda d: {k: d[k] for k in names}) if weight else (lambda d: {})
    loss = PairLoss(names, pick(SCALES), pick(DIMENSIONS), weight, chunk=chunk)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(Rows.alone(image), Rows.alone(text), torch.tensor(9.0, requires_grad=True), *teachers)
    return sum(tensor.numel() for tensor in kept.values()) // n


def test_matrices_are_not_kept_more_often_than_needed():
    """Contrast: similarities (for the scale) and a log-softmax a direction; distillation: a target a direction more."""
    assert saved_numbers(0, 0.0) <= 3 * 64
    assert saved_numbers(0, 1.0) <= 5 * 64  # however many teachers
    assert saved_numbers(16, 1.0) == 0


def test_sigmoid_equals_double_loop(batch):
    """A teacher with a bias says sigmoid, one without the mean of its two softmaxes."""
    n, scale, bias = 6, 9.0, -2.0
    contrastive = distillation = 0.0
    for i in range(n):
        for j in range(n):
            p = 1 / (1 + math.exp(-(scale * dot(batch["image"][i], batch["text"][j]) + bias)))
            u, w = batch["teacher_image"], batch["teacher_text"]
            first = 1 / (1 + math.exp(-(SCALES["first"] * dot(u["first"][i], w["first"][j]) - 3)))
            row = softmax_row(u["second"][i], w["second"], SCALES["second"])[j]
            column = softmax_row(w["second"][j], u["second"], SCALES["second"])[i]
            q = (first + (row + column) / 2) / 2
            contrastive -= math.log(p if i == j else 1 - p) / n
            distillation += (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))) / n
    loss = PairLoss(tuple(SCALES), SCALES, DIMENSIONS, 0.4, "sigmoid", {"first": -3.0})
    found = call(loss, batch, scale, bias)
    assert found.parts["contrastive"].item() == pytest.approx(contrastive, abs=1e-12)
    assert found.parts["distillation"].item() == pytest.approx(distillation, abs=1e-12)
    assert found.total.item() == pytest.approx(0.6 * contrastive + 0.4 * distillation, abs=1e-12)


def test_sigmoid_optimum_is_the_teachers_probability():
    """Where the student's sigmoid equals the target, loss and gradient are 0; SigLIP's own form moves on there."""
    from mobileclip2_lite.training.row_losses import sigmoid_rows

    target = torch.tensor([[0.9, 0.2], [0.01, 0.5]], dtype=torch.float64)
    logits = target.logit().requires_grad_()
    _, distillation = sigmoid_rows(logits, target, 0)
    distillation.backward()
    assert distillation.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad.abs().max() < 1e-12
    soft_labels = target.logit().requires_grad_()
    (-F.logsigmoid((2 * target - 1) * soft_labels)).sum().backward()
    assert soft_labels.grad.abs().max() > 0.1


def test_sigmoid_survives_certain_teachers():
    from mobileclip2_lite.training.row_losses import sigmoid_rows

    logits = torch.tensor([[60.0, -60.0]], requires_grad=True)
    _, distillation = sigmoid_rows(logits, torch.tensor([[1.0, 0.0]]), 0)
    distillation.backward()
    assert distillation.item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(logits.grad).all()


def test_captioning_equals_double_loop():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 7, generator=g, dtype=torch.float64)
    targets = torch.tensor([[1, 2, 3, 0], [4, 0, 0, 0], [5, 6, 1, 2]])
    value, counted = 0.0, 0
    for b in range(3):
        for place in range(4):
            if targets[b, place]:
                row = logits[b, place].tolist()
                value -= row[targets[b, place]] - math.log(sum(math.exp(x) for x in row))
                counted += 1
    assert next_token_loss(logits, targets).item() == pytest.approx(value / counted, abs=1e-12)
    assert torch.autograd.gradcheck(lambda x: next_token_loss(x, targets), logits.requires_grad_())
    halves = [next_token_loss(logits[i], targets[i], tokens=counted).item() for i in (slice(0, 1), slice(1, 3))]
    assert sum(halves) == pytest.approx(value / counted, abs=1e-12)
    with pytest.raises(ValueError, match="no token to predict"):
        next_token_loss(logits, torch.zeros(3, 4, dtype=torch.long))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logit_scales": {"first": 20.0}}, r"missing: \['second'\]"),
        ({"logit_scales": {**SCALES, "third": 1.0}}, r"not a teacher: \['third'\]"),
        ({"dimensions": {"first": 5}}, "one dimension for each teacher"),
        ({"teachers": ("first", "first")}, "named twice"),
        ({"logit_scales": {"first": -1.0, "second": 2.0}}, "must be positive"),
        ({"logit_scales": {"first": float("nan"), "second": 2.0}}, "must be positive"),
        ({"weight": 1.5}, "between 0 and 1"),
        ({"form": "hinge"}, "unknown form"),
        ({"logit_biases": {"first": 1.0}}, "does not change with a logit bias"),
        ({"form": "sigmoid", "logit_biases": {"third": 1.0}}, "logit bias for"),
        ({"teachers": (), "logit_scales": {}, "dimensions": {}}, "no teacher is named"),
    ],
)
def test_wrong_construction_is_an_error(arguments, message):
    given = {"teachers": tuple(SCALES), "logit_scales": SCALES, "dimensions": DIMENSIONS, "weight": 1.0, **arguments}
    with pytest.raises(ValueError, match=message):
        PairLoss(**given)


def test_wrong_rows_are_an_error(batch):
    loss = PairLoss(tuple(SCALES), SCALES, DIMENSIONS, 1.0)
    with pytest.raises(
        ValueError, match=r"image embeddings of second \(local rows\) have shape \(6, 5\), expected \(6, 3\)"
    ):
        call(
            loss,
            batch,
            teacher_image={"first": batch["teacher_image"]["first"], "second": batch["teacher_image"]["first"]},
        )
    with pytest.raises(ValueError, match="one text embedding for each teacher"):
        call(loss, batch, teacher_text={"first": batch["teacher_text"]["first"]})


def features(batch: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fresh leaves: image, text, scale."""
    scale = torch.tensor(9.0, dtype=torch.float64)
    return tuple(x.clone().requires_grad_() for x in (batch["image"], batch["text"], scale))


def assert_same_gradients(ours: torch.Tensor, inputs, theirs: torch.Tensor, their_inputs) -> None:
    for mine, other in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, their_inputs), strict=True):
        assert torch.allclose(mine, other, rtol=1e-9, atol=1e-12)


def test_equals_open_clips_losses(batch):
    """ClipLoss in value; SigLipLoss in value; DistillClipLoss, a cross-entropy, in gradient and up to the entropy."""
    from open_clip import ClipLoss
    from open_clip.loss import DistillClipLoss, SigLipLoss

    image, text, scale = mine = features(batch)
    others = features(batch)
    ours = PairLoss()(Rows.alone(image), Rows.alone(text), scale).total
    theirs = ClipLoss()(*others)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    assert_same_gradients(ours, mine, theirs, others)

    bias = torch.tensor(-2.0, dtype=torch.float64)
    ours = PairLoss(form="sigmoid")(Rows.alone(image), Rows.alone(text), scale, logit_bias=bias).total
    theirs = SigLipLoss()(*others, bias)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    assert_same_gradients(ours, mine, theirs, others)

    one = {side: {"first": Rows.alone(batch[side]["first"])} for side in ("teacher_image", "teacher_text")}
    loss = PairLoss(("first",), {"first": 20.0}, {"first": 5}, 1.0)
    ours = loss(Rows.alone(image), Rows.alone(text), scale, **one).total
    rows = [one[side]["first"].local for side in ("teacher_image", "teacher_text")]
    _, theirs = DistillClipLoss()(*others, *rows, torch.tensor(20.0, dtype=torch.float64))
    logits = 20 * rows[0] @ rows[1].T
    entropy = -sum(ensemble_target([matrix])[1].mean() for matrix in (logits, logits.T)) / 2
    assert (theirs - ours).item() == pytest.approx(entropy.item(), abs=1e-10)
    assert_same_gradients(ours, mine, theirs, others)


def test_mean_of_probabilities_has_the_gradient_of_the_mean_of_kl(batch):
    """The paper's K divergences one by one, against one cross-entropy with their mean target."""
    mine, others = features(batch), features(batch)
    ours = PairLoss(tuple(SCALES), SCALES, DIMENSIONS, 1.0)(
        *(Rows.alone(x) for x in mine[:2]), mine[2], alone(batch["teacher_image"]), alone(batch["teacher_text"])
    ).total
    image, text, scale = others
    terms = []
    for name, teacher_scale in SCALES.items():
        target = teacher_scale * batch["teacher_image"][name] @ batch["teacher_text"][name].T
        logits = scale * image @ text.T
        for student, teacher in ((logits, target), (logits.T, target.T)):
            terms.append(F.kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean"))
    theirs = sum(terms) / (2 * len(SCALES))
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-12)
    assert_same_gradients(ours, mine, theirs, others)


def naive_contrastive_without(images, texts, ids, scale: float) -> float:
    """The contrast in which rows of one image are not each other's negatives."""
    total = 0.0
    for queries, keys in ((images, texts), (texts, images)):
        for i, query in enumerate(queries):
            asked = [j for j in range(len(keys)) if j == i or ids[j] != ids[i]]
            row = softmax_row(query, [keys[j] for j in asked], scale)
            total -= math.log(row[asked.index(i)]) / (2 * len(queries))
    return total


@pytest.mark.parametrize("chunk", [0, 1, 4])
def test_rows_of_one_image_are_not_each_others_negatives(batch, chunk):
    ids = torch.tensor([7, 3, 7, 1, 3, 7])
    loss = PairLoss(chunk=chunk)
    arguments = (Rows.alone(batch["image"]), Rows.alone(batch["text"]), torch.tensor(9.0, dtype=torch.float64))
    found = loss(*arguments, image_ids=Rows.alone(ids)).total.item()
    assert found == pytest.approx(naive_contrastive_without(batch["image"], batch["text"], ids, 9.0))
    assert found < loss(*arguments).total.item()
    assert loss(*arguments, image_ids=Rows.alone(torch.arange(6))).total.item() == loss(*arguments).total.item()


def test_the_sigmoid_asks_nothing_about_rows_of_one_image(batch):
    ids = torch.tensor([7, 3, 7, 1, 3, 7])
    scale, bias = 9.0, -2.0
    loss = PairLoss(form="sigmoid")
    arguments = (Rows.alone(batch["image"]), Rows.alone(batch["text"]), torch.tensor(scale, dtype=torch.float64))
    found = loss(*arguments, logit_bias=torch.tensor(bias, dtype=torch.float64), image_ids=Rows.alone(ids)).total.item()
    total = 0.0
    for i, u in enumerate(batch["image"]):
        for j, w in enumerate(batch["text"]):
            if i == j or ids[i] != ids[j]:
                logit = scale * dot(u, w) + bias
                total += math.log(1 + math.exp(-logit if i == j else logit)) / 6
    assert found == pytest.approx(total)


def test_two_processes_leave_out_the_same_pairs_as_one(batch):
    ids = torch.tensor([7, 3, 7, 1, 3, 7])
    scale, loss = torch.tensor(9.0, dtype=torch.float64), PairLoss()
    whole = loss(Rows.alone(batch["image"]), Rows.alone(batch["text"]), scale, image_ids=Rows.alone(ids)).total
    shares = [
        loss(*(Rows(x[a:b], x, a) for x in (batch["image"], batch["text"])), scale, image_ids=Rows(ids[a:b], ids, a))
        for a, b in ((0, 2), (2, 6))
    ]
    assert sum(share.total.item() for share in shares) == pytest.approx(whole.item())


def naive_gated(batch, scale: float, weight: float) -> float:
    """Each row's contrastive term times the teachers' probability of its partner over their largest."""
    total = 0.0
    for student, teacher in (("image", "text"), ("text", "image")):
        queries, keys = batch[student], batch[teacher]
        for i, query in enumerate(queries):
            rows = [
                softmax_row(batch[f"teacher_{student}"][name][i], batch[f"teacher_{teacher}"][name], SCALES[name])
                for name in SCALES
            ]
            mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
            gate = mean[i] / max(mean)
            total -= gate * math.log(softmax_row(query, keys, scale)[i]) / (2 * len(queries))
    return (1 - weight) * total + weight * naive_distillation(batch, scale, SCALES)


@pytest.mark.parametrize("chunk", [0, 1, 4])
def test_a_gated_contrast_is_weighed_by_the_teachers_belief(batch, chunk):
    loss = PairLoss(tuple(SCALES), SCALES, DIMENSIONS, 0.7, chunk=chunk, gated=True)
    arguments = (Rows.alone(batch["image"]), Rows.alone(batch["text"]), torch.tensor(9.0, dtype=torch.float64))
    teachers = alone(batch["teacher_image"]), alone(batch["teacher_text"])
    found = loss(*arguments, *teachers)
    assert found.total.item() == pytest.approx(naive_gated(batch, 9.0, 0.7))
    plain = PairLoss(tuple(SCALES), SCALES, DIMENSIONS, 0.7, chunk=chunk)(*arguments, *teachers)
    assert found.parts["contrastive"] < plain.parts["contrastive"]
    assert found.parts["distillation"] == plain.parts["distillation"]


def test_teachers_that_believe_in_every_pair_gate_nothing(batch):
    sure = {name: torch.eye(6, dtype=torch.float64) for name in SCALES}
    dimensions = dict.fromkeys(SCALES, 6)
    arguments = (Rows.alone(batch["image"]), Rows.alone(batch["text"]), torch.tensor(9.0, dtype=torch.float64))
    values = [
        PairLoss(tuple(SCALES), SCALES, dimensions, 0.5, gated=gated)(*arguments, alone(sure), alone(sure)).total.item()
        for gated in (False, True)
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize(("weight", "form"), [(0.0, "softmax"), (1.0, "softmax"), (0.5, "sigmoid")])
def test_a_gate_with_nothing_to_gate_is_an_error(weight, form):
    with pytest.raises(ValueError, match="a gated contrast needs"):
        PairLoss(tuple(SCALES), SCALES, DIMENSIONS, weight, form, gated=True)
