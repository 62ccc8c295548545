"""Measures against double loops, hand-made features with known answers, and chance."""

import itertools

import numpy as np
import pytest
import torch
from doubles.colour_clip import COLOURS, colour_clip, plain
from PIL import Image

from mobileclip2_lite import emoji_world
from mobileclip2_lite.evaluation import measures
from mobileclip2_lite.evaluation.measures import (
    expected_hit,
    pair_accuracy,
    retrieval,
    top_classes,
    zero_shot_accuracy,
    zero_shot_classifier,
)
from mobileclip2_lite.evaluation.suite import (
    chance,
    evaluate,
    hits,
    negative_images,
    retrieval_images,
    zero_shot_images,
)
from mobileclip2_lite.models.loaded import encode_images, encode_texts
from mobileclip2_lite.recipes import Evaluate, World


def random_unit(*shape, seed=0):
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def naive_recall(similarity, right, k):
    """Double loop over queries and candidates, without ties."""
    hits = 0
    for query in range(len(similarity)):
        order = sorted(range(len(similarity[query])), key=lambda c: -similarity[query][c])
        hits += any(right[query][c] for c in order[:k])
    return hits / len(similarity)


@pytest.mark.parametrize("chunk", [7, 1_024])
def test_retrieval_equals_double_loop(monkeypatch, chunk):
    monkeypatch.setattr(measures, "CHUNK", chunk)
    images = random_unit(23, 8)
    owner = torch.arange(23).repeat_interleave(5)[torch.randperm(115, generator=torch.Generator().manual_seed(1))]
    texts = torch.nn.functional.normalize(images[owner] + 0.8 * random_unit(115, 8, seed=2), dim=-1)
    result = retrieval(images, texts, owner, ks=(1, 3, 10))
    similarity, right = (images @ texts.T).tolist(), (torch.arange(23)[:, None] == owner).tolist()
    transposed = [list(row) for row in zip(*similarity, strict=True)], [list(row) for row in zip(*right, strict=True)]
    for k in (1, 3, 10):
        assert result[f"i2t_r{k}"] == pytest.approx(naive_recall(similarity, right, k))
        assert result[f"t2i_r{k}"] == pytest.approx(naive_recall(*transposed, k))
    assert 0.2 < result["i2t_r1"] < 1


def test_retrieval_of_five_captions_by_hand():
    """One of five captions is enough for image to text; for text to image every caption counts."""
    images = torch.eye(4)
    texts = torch.stack([images[i] if j == 0 else images[(i + 1) % 4] for i in range(4) for j in range(5)])
    owner = np.repeat(np.arange(4), 5)
    result = retrieval(images, texts + 1e-3 * images[owner], owner, ks=(1, 2))
    assert result["i2t_r1"] == 1.0
    assert result["t2i_r1"] == pytest.approx(0.2)
    assert result["t2i_r2"] == 1.0


def test_images_without_a_text_are_no_query():
    images = random_unit(6, 4)
    result = retrieval(images, images[:3], [0, 1, 2], ks=(1,))
    assert result == {"i2t_r1": 1.0, "t2i_r1": 1.0}


def test_retrieval_refuses_wrong_owners():
    with pytest.raises(ValueError, match="outside the 3 images"):
        retrieval(random_unit(3, 4), random_unit(3, 4), [0, 1, 3])
    with pytest.raises(ValueError, match="2 entries"):
        retrieval(random_unit(3, 4), random_unit(3, 4), [0, 1])


def test_expected_hit_equals_all_orders():
    """Ties: the mean over every order of the tied candidates."""
    for higher, tied, right, k in [(0, 4, 2, 1), (1, 4, 2, 3), (2, 5, 1, 4), (3, 3, 1, 2), (0, 3, 3, 1), (1, 2, 1, 9)]:
        orders = list(itertools.permutations([1] * right + [0] * (tied - right)))
        expected = np.mean([any(([0] * higher + list(order))[:k]) for order in orders])
        got = expected_hit(*(torch.tensor([value]) for value in (higher, tied, right)), k)
        assert float(got) == pytest.approx(float(expected)), (higher, tied, right, k)


def test_a_constant_model_scores_chance():
    same = torch.ones(20, 3) / 3**0.5
    owner = np.repeat(np.arange(20), 5)
    result = retrieval(same, same.repeat(5, 1), owner, ks=(1, 5))
    assert result["t2i_r1"] == pytest.approx(1 / 20)
    assert result["t2i_r5"] == pytest.approx(5 / 20)
    assert result["i2t_r1"] == pytest.approx(1 / 20)
    assert result["i2t_r5"] == pytest.approx(1 - np.prod([(95 - j) / (100 - j) for j in range(5)]))
    accuracy = zero_shot_accuracy(same, same[:10], np.arange(20) % 10)
    assert accuracy == pytest.approx({"top1": 0.1, "top5": 0.5})
    assert pair_accuracy(same, same, same) == 0.5


def test_random_features_are_near_chance():
    accuracy = zero_shot_accuracy(random_unit(4_000, 16), random_unit(50, 16, seed=1), np.arange(4_000) % 50)
    assert accuracy["top1"] == pytest.approx(0.02, abs=0.01)
    assert accuracy["top5"] == pytest.approx(0.10, abs=0.02)


def test_zero_shot_equals_double_loop():
    images, classes = random_unit(40, 6), random_unit(9, 6, seed=1)
    labels = [i % 9 for i in range(40)]
    similarity = (images @ classes.T).tolist()
    right = [[c == labels[i] for c in range(9)] for i in range(40)]
    result = zero_shot_accuracy(images, classes, labels, ks=(1, 5))
    assert result == pytest.approx({f"top{k}": naive_recall(similarity, right, k) for k in (1, 5)})


def test_pair_accuracy_by_hand():
    image = torch.eye(3)
    positive = torch.eye(3)
    negative = torch.stack([torch.eye(3)[1], torch.eye(3)[1], 2 * torch.eye(3)[2]])
    assert pair_accuracy(image, positive, negative) == pytest.approx((1 + 0.5 + 0) / 3)


def test_classifier_is_the_mean_over_prompts():
    loaded = colour_clip()
    templates = ["{}", "a {} thing on red", lambda name: f"{name} and {name}"]
    weights = zero_shot_classifier(loaded, list(COLOURS), templates)
    prompts = [["green", "a green thing on red", "green and green"]]
    by_hand = encode_texts(loaded, prompts[0]).mean(dim=0)
    assert torch.allclose(weights[1], by_hand / by_hand.norm(), atol=1e-6)
    assert torch.allclose(weights.norm(dim=1), torch.ones(3))
    with pytest.raises(ValueError, match=r"no '.*' for the class"):
        zero_shot_classifier(loaded, ["red"], ["a photo"])


def test_batch_size_changes_nothing_and_mode_is_put_back():
    loaded = colour_clip()
    loaded.model.train()
    images = [plain(colour) for colour in ("red", "green", "blue", "red", "blue")]
    features = encode_images(loaded, iter(images), batch_size=2)
    assert loaded.model.batches == [2, 2, 1]
    assert loaded.model.training
    assert torch.equal(features, encode_images(loaded, [Image.fromarray(i) for i in images], batch_size=99))
    assert not features.requires_grad


def test_texts_keep_their_order_and_repeats_are_encoded_once():
    loaded = colour_clip()
    texts = ["a long red text", "blue", "green", "blue", "a long red text"]
    features = encode_texts(loaded, texts, batch_size=2)
    assert loaded.model.batches == [2, 1]
    assert features.argmax(dim=1).tolist() == [0, 2, 1, 2, 0]
    assert torch.equal(features[0], features[4])


def test_nothing_to_encode_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        encode_images(colour_clip(), [])
    with pytest.raises(ValueError, match="no text"):
        encode_texts(colour_clip(), [])


def test_top_classes_best_first():
    features = encode_images(colour_clip(), [plain("green"), plain("blue")])
    weights = zero_shot_classifier(colour_clip(), list(COLOURS), ["{}"])
    assert [row[0] for row in top_classes(features, weights, k=2)] == [1, 2]
    assert all(len(row) == 3 for row in top_classes(features, weights, k=9))


@pytest.fixture
def colour_world(monkeypatch):
    """An embedded world of three colours; shifts turn every picture blue. Counts how often a set is rendered."""
    calls, names = [], list(COLOURS)

    def zero_shot_set(settings, renders, shift=None, *, split):
        calls.append((split, shift))
        shown = names * renders if shift is None else ["blue"] * 3 * renders
        return (plain(name) for name in shown), np.array([0, 1, 2] * renders), names

    def retrieval_set(settings, scenes, *, split):
        calls.append((split, "retrieval"))
        return (plain(name) for name in names), [[f"{name} {i}" for i in range(5)] for name in names]

    def negatives(settings, n, *, split):
        return (plain(names[i % 3]) for i in range(n)), [names[i % 3] for i in range(n)], ["red"] * n

    monkeypatch.setattr(emoji_world, "zero_shot_set", zero_shot_set)
    monkeypatch.setattr(emoji_world, "retrieval_set", retrieval_set)
    monkeypatch.setattr(emoji_world, "binding_set", negatives)
    monkeypatch.setattr(emoji_world, "relations_set", negatives)
    monkeypatch.setattr(emoji_world, "names", lambda count=0: names)
    monkeypatch.setattr(emoji_world, "TEMPLATES", ("a {}",))
    caches = zero_shot_images, retrieval_images, negative_images
    for cache in caches:
        cache.cache_clear()
    yield calls
    for cache in caches:
        cache.cache_clear()


def test_evaluate_on_a_world_of_colours(colour_world):
    settings = Evaluate(2, 2, 3, 6, val_renders=1, val_scenes=3, val_hard_negatives=6, batch_size=4)
    result = evaluate(colour_clip(), World(names=3), settings)
    assert result["zero_shot"] == result["zero_shot_top5"] == 1.0
    assert result["retrieval_i2t_r1"] == result["retrieval_t2i_r1"] == 1.0
    assert result["zero_shot_grey"] == pytest.approx(1 / 3)
    assert result["binding"] == pytest.approx((0.5 + 1 + 1) / 3)
    rendered = len(colour_world)
    assert evaluate(colour_clip(), World(names=3), settings) == result
    assert len(colour_world) == rendered, "a second model is evaluated on the same rendered pictures"
    assert {split for split, _ in colour_world} == {"test"}
    del colour_world[:]
    evaluate(colour_clip(), World(names=3), settings, split="val")
    assert {split for split, _ in colour_world} == {"val"}
    single = hits(colour_clip(), World(names=3), settings)
    assert {name: values.mean() for name, values in single.items()} == pytest.approx(result)
    assert {name: len(single[name]) for name in ("zero_shot", "retrieval_i2t_r1", "retrieval_t2i_r1", "binding")} == {
        "zero_shot": 6,
        "retrieval_i2t_r1": 3,
        "retrieval_t2i_r1": 15,
        "binding": 6,
    }
    with pytest.raises(ValueError, match="split 'train'"):
        evaluate(colour_clip(), World(names=3), settings, split="train")
    assert set(chance(World(names=3), settings)) == set(result)
    assert set(evaluate(colour_clip(), World(names=3), settings, only=("zero_shot", "binding"))) == {
        "zero_shot",
        "zero_shot_top5",
        "binding",
    }
    with pytest.raises(ValueError, match="unknown parts"):
        evaluate(colour_clip(), World(), settings, only=("zeroshot",))


def test_chance_by_hand(colour_world):
    result = chance(World(), Evaluate(scenes=1_000))
    assert result["zero_shot"] == pytest.approx(1 / 3)
    assert result["retrieval_i2t_r1"] == pytest.approx(0.001)
    assert result["retrieval_t2i_r5"] == pytest.approx(0.005)
    assert result["retrieval_i2t_r5"] == pytest.approx(0.005, rel=0.01)


def test_a_real_model_gives_the_same_features_whatever_the_batches():
    """Texts are cut to the longest of their batch, which changes nothing in a causal tower."""
    from mobileclip2_lite.models.zoo import create_model

    torch.manual_seed(0)
    loaded = create_model("lite-mci-s")
    texts = ["a dog", "a large blue dog at the top left, a cat at the bottom, on a striped red background", "cat"]
    together = encode_texts(loaded, texts, batch_size=3)
    alone = encode_texts(loaded, texts, batch_size=1)
    with torch.inference_mode():
        whole = loaded.model.encode_text(loaded.tokenizer(texts), normalize=True)
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, whole, atol=1e-5)
    images = list(emoji_world.retrieval_set(World(names=8), 3).images)
    by_hand = torch.stack([loaded.preprocess(Image.fromarray(image)) for image in images])
    with torch.inference_mode():
        features = loaded.model.encode_image(by_hand, normalize=True)
    assert torch.allclose(encode_images(loaded, images, batch_size=2), features, atol=1e-5)


@pytest.mark.parametrize("labels", [[0, -1, 1], [0, 3, 1]])
def test_labels_outside_the_classes_are_no_errors_of_the_model(labels):
    with pytest.raises(ValueError, match="not all rows of 3 classes"):
        zero_shot_accuracy(torch.eye(3), torch.eye(3), labels)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([0.5, 1, 2], r"not all whole numbers, but \[0\.5\]"),
        ([0, float("nan"), 2], r"not all whole numbers, but \[nan\]"),
        (["0", "1", "2"], "not all whole numbers, but \\['0', '1', '2'\\]"),
        ([0, None, 2], "not all whole numbers, but .*None"),
        ([[0], [1], [2]], r"have shape \(3, 1\)"),
        ([], r"have shape \(0,\): .*at least one"),
    ],
)
def test_row_numbers_are_one_whole_number_a_query(rows, words):
    """A fraction is not cut to a class, and a column of labels is not spread over all images."""
    queries = torch.eye(3)[: len(rows)]
    with pytest.raises(ValueError, match=f"labels .*{words}"):
        zero_shot_accuracy(queries, torch.eye(3), rows)
    with pytest.raises(ValueError, match=f"image_of_text .*{words}"):
        retrieval(torch.eye(3), queries, rows)


@pytest.mark.parametrize("of", [list, np.float64, np.int8, np.uint64, torch.tensor])
def test_row_numbers_of_any_type_of_numbers_are_the_same(of):
    rows = np.array([2, 0, 1]).astype(of) if isinstance(of, type) and issubclass(of, np.generic) else of([2, 0, 1])
    assert zero_shot_accuracy(torch.eye(3)[[2, 0, 1]], torch.eye(3), rows) == {"top1": 1.0, "top5": 1.0}
    assert retrieval(torch.eye(3), torch.eye(3)[[2, 0, 1]], rows)["t2i_r1"] == 1.0


@pytest.mark.parametrize("counts", [(3, 3, 2), (3, 1, 3), (0, 0, 0)])
def test_pairs_are_rows_of_one_number(counts):
    with pytest.raises(ValueError, match="rows of one number"):
        pair_accuracy(*(torch.eye(3)[:count] for count in counts))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_features_that_are_not_finite_are_no_result_of_0(value):
    good, bad = torch.eye(4), torch.eye(4)
    bad[2, 1] = value
    for one, other in ((good, bad), (bad, good)):
        for measure in (
            lambda a, b: measures.zero_shot_accuracy(a, b, [0, 1, 2, 3]),
            lambda a, b: measures.retrieval(a, b, [0, 1, 2, 3]),
            lambda a, b: measures.pair_accuracy(a, b, good.flip(0)),
        ):
            with pytest.raises(ValueError, match="features that are not finite"):
                measure(one, other)


@pytest.mark.parametrize("name", ["a {} in it", "{0}", "{", "100 %", "{c}"])
def test_a_class_may_have_any_name_and_a_template_any_signs(name):
    loaded, seen = colour_clip(), []
    tokenizer = loaded.tokenizer
    loaded.tokenizer = lambda texts: seen.extend(texts) or tokenizer(texts)
    measures.zero_shot_classifier(loaded, [name], ["a {} {of} it {}"])
    assert seen == [f"a {name} {{of}} it {name}"]


# --- intervals --------------------------------------------------------------------------------------------------------


def test_an_interval_of_independent_hits_is_wilsons():
    low, high = measures.interval(torch.tensor([1.0] * 30 + [0.0] * 70))
    assert (low, high) == pytest.approx((0.2189, 0.3958), abs=2e-3), "Wilson's for 30 of 100"
    low, high = measures.interval(torch.ones(10))
    assert (low, high) == pytest.approx((0.7225, 1.0), abs=2e-3), "all of ten is not certainty"
    assert measures.interval(torch.zeros(10))[0] == 0
    low, high = measures.interval(torch.ones(1))
    assert low < 0.25


def test_captions_of_one_image_are_one_query_where_they_are_hit_together():
    together = torch.tensor([1.0, 0.0] * 20).repeat_interleave(5)
    owner = torch.arange(40).repeat_interleave(5)
    alone = measures.interval(together[::5])
    assert measures.interval(together, owner) == pytest.approx(alone, abs=1e-9), "five times the same says it once"
    assert measures.interval(together)[0] > alone[0] + 0.05
    shuffled = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert measures.interval(together[shuffled], owner[shuffled]) == pytest.approx(alone, abs=1e-9)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.97])
def test_nineteen_of_twenty_intervals_hold_the_truth(rate):
    draw, inside = np.random.default_rng(0), 0
    for _ in range(400):
        own = draw.beta(4 * rate, 4 * (1 - rate), 60)  # images differ in how easily their captions are found
        hits = draw.random((60, 5)) < own[:, None]
        low, high = measures.interval(torch.from_numpy(hits.ravel()), np.arange(60).repeat(5))
        inside += low <= rate <= high
    assert 0.9 < inside / 400 <= 0.99, "a little fewer where hits are rare or misses"


def test_images_with_equally_many_captions_count_as_a_sample_of_clusters():
    """The published variance of a mean over clusters: that of the images' own means, by n - 1, over n."""
    per_image = np.array([[1, 1], [0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float64)
    mean, error = per_image.mean(), per_image.mean(axis=1).var(ddof=1) / 5
    count, z = mean * (1 - mean) / error, 1.96
    middle = (mean + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (mean * (1 - mean) / count + z * z / (4 * count**2)) ** 0.5
    found = measures.interval(torch.from_numpy(per_image.ravel()), np.repeat(np.arange(5), 2))
    assert count < 10, "else the number of captions would be the limit"
    assert found == pytest.approx([middle - half, middle + half])


@pytest.mark.parametrize("hit", [0.0, 1.0])
def test_where_all_captions_are_hit_or_missed_the_images_are_counted(hit):
    """Wilson's ends at a share of 1 are n / (n + z^2) and 1: of four images, not of their twenty captions."""
    low, high = measures.interval(torch.full((20,), hit), np.repeat(np.arange(4), 5))
    far = 4 / (4 + 1.96**2)
    assert (low, high) == pytest.approx((far, 1.0) if hit else (0.0, 1 - far))
