"""A second judge: the library `mteb` measures the same model on the same data, and must find the same numbers.

MIEB (arXiv 2504.10471) is what the field keeps for embeddings of images and texts. `mteb_model` makes any model one of
mteb's, for all of its tasks; `judge` lets mteb measure one of our test sets. Reads a `TestSet`; writes nothing. Gives
up: prompt ensembles and SugarCrepe++'s two right captions, which mteb does not have. Needs the extra `eval`.
Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mobileclip2_lite.evaluation.sets import Example, TestSet, readable
from mobileclip2_lite.models.loaded import encode_images, encode_texts

if TYPE_CHECKING:
    from mobileclip2_lite.models.loaded import LoadedModel


def mteb_model(loaded: LoadedModel, name: str = "local/model") -> Any:
    """A model that mteb can evaluate on all tasks of images and texts: `mteb.evaluate(mteb_model(loaded), tasks)`.

    Args:
        loaded: model, preprocess and tokenizer together.
        name: `OWNER/NAME` under which mteb keeps results.

    Raises:
        ModuleNotFoundError: mteb is missing: `pip install mobileclip2_lite[eval]`.
    """
    mteb = _mteb()
    from mteb.models.abs_encoder import AbsEncoder

    class Model(AbsEncoder):
        """Ours in mteb's form."""

        model = loaded
        mteb_model_meta = mteb.models.ModelMeta.create_empty(
            overwrites={"name": name, "revision": "local", "modalities": ["image", "text"]}
        )

        def encode(self, inputs: Any, **_: Any) -> np.ndarray:
            """Unit features of what a loader gives: images, texts, or the sum of both."""
            batches = list(inputs)
            found = []
            if any("image" in batch for batch in batches):
                found.append(encode_images(loaded, (image for batch in batches for image in batch["image"])))
            if any("text" in batch for batch in batches):
                found.append(encode_texts(loaded, [text for batch in batches for text in batch["text"]]))
            if not found:
                raise ValueError("mteb gave neither images nor texts: this model knows nothing else")
            return sum(found[1:], found[0]).numpy()

    return Model()


def judge(loaded: LoadedModel, test_set: TestSet, template: str = "{}", batch_size: int = 256) -> dict[str, float]:
    """mteb's numbers on one of our test sets, under our names: `top1`, `t2i_r1` …, or `accuracy`.

    Args:
        template: the one prompt of a classification set.

    Raises:
        ModuleNotFoundError: mteb is missing: `pip install mobileclip2_lite[eval]`.
        ValueError: a set of a form that mteb does not have.
    """
    mteb = _mteb()
    kept: list[Example] = []
    images = list(readable(test_set.examples(), kept, Counter()))
    make = {"classification": _zero_shot, "retrieval": _retrieval, "hard_negatives": _pairs}[test_set.kind]
    measured = {}
    for task, names in make(mteb, test_set, images, kept, template):
        task.data_loaded = True
        options = {"batch_size": batch_size, "show_progress_bar": False}
        found = mteb.evaluate(
            mteb_model(loaded), task, cache=None, co2_tracker=False, encode_kwargs=options, show_progress_bar=False
        )
        (scores,) = found.task_results[0].scores["test"]
        measured |= {ours: float(scores[theirs]) for theirs, ours in names.items()}
    return measured


def _mteb() -> Any:
    try:
        import mteb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'the second judge is mteb: pip install "mobileclip2_lite[eval]"', name="mteb"
        ) from error
    return mteb


def _metadata(mteb: Any, name: str, kind: str, category: str, score: str) -> Any:
    """What mteb asks of a task, for one that lies here alone."""
    return mteb.TaskMetadata(
        name=name,
        description="A test set that lies on this machine.",
        dataset={"path": "local", "revision": "local"},
        type=kind,
        category=category,
        eval_langs=["eng-Latn"],
        main_score=score,
        modalities=["text", "image"],
    )


def _rows(**columns: Any) -> Any:
    """A `datasets.Dataset` in memory, images as images."""
    import datasets

    kinds = {"image": datasets.Image(), "label": datasets.Value("int64")}
    features = {name: kinds.get(name, datasets.Value("string")) for name in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def _zero_shot(mteb: Any, test_set: TestSet, images: list, kept: list[Example], template: str) -> list:
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

    class Task(AbsTaskZeroShotClassification):
        metadata = _metadata(mteb, "LocalZeroShot", "ZeroShotClassification", "i2t", "accuracy")

        def get_candidate_labels(self) -> list[str]:
            return [template.format(name) for name in test_set.class_names]

    task = Task()
    task.dataset = {"test": _rows(image=images, label=[example.label for example in kept])}
    return [(task, {"accuracy": "top1", "recall": "mean_per_class_recall"})]


def _retrieval(mteb: Any, test_set: TestSet, images: list, kept: list[Example], template: str) -> list:
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    texts = [(row, text) for row, example in enumerate(kept) for text in example.texts]
    sides = {
        "i": _rows(id=[f"i{row}" for row in range(len(images))], image=images),
        "t": _rows(id=[f"t{number}" for number in range(len(texts))], text=[text for _, text in texts]),
    }
    pairs = [(f"i{row}", f"t{number}") for number, (row, _) in enumerate(texts)]
    tasks = []
    for query, corpus in (("i", "t"), ("t", "i")):
        relevant: dict[str, dict[str, int]] = {}
        for image, text in pairs:
            one, other = (image, text) if query == "i" else (text, image)
            relevant.setdefault(one, {})[other] = 1
        way = f"{query}2{corpus}"
        name = f"Local{way.upper()}Retrieval"
        metadata_of = _metadata(mteb, name, "Any2AnyRetrieval", way, "ndcg_at_10")
        task = type("Task", (AbsTaskRetrieval,), {"metadata": metadata_of})()
        data = {"queries": sides[query], "corpus": sides[corpus], "relevant_docs": relevant, "top_ranked": None}
        task.dataset = {"default": {"test": data}}
        tasks.append((task, {f"hit_rate_at_{k}": f"{way}_r{k}" for k in (1, 5, 10)}))
    return tasks


def _pairs(mteb: Any, test_set: TestSet, images: list, kept: list[Example], template: str) -> list:
    from mteb.abstasks.image.image_text_pair_classification import AbsTaskImageTextPairClassification

    if {(len(example.texts), len(example.negatives)) for example in kept} != {(1, 1)}:
        raise ValueError(f"mteb measures one right and one wrong caption an image; {test_set.name} has others")

    class Task(AbsTaskImageTextPairClassification):
        images_column_names = ("image",)
        texts_column_names = ("caption", "negative_caption")
        metadata = _metadata(mteb, "LocalPairs", "Compositionality", "i2t", "text_acc")

    task = Task()
    columns = {"caption": [example.texts[0] for example in kept]}
    task.dataset = {"test": _rows(image=images, **columns, negative_caption=[e.negatives[0] for e in kept])}
    return [(task, {"text_acc": "accuracy"})]
