"""DataComp's 38 evaluation sets as a list: where each lies, how large it is, and what is counted.

Paper: MobileCLIP2 (arXiv 2508.20691) reports their mean ("Avg. 38"); the list is that of DataComp (arXiv 2304.14108),
`tasklist.yml` without its FairFace and UTKFace, which have no score of their own. Reads and writes nothing. Differs
from DataComp: five sets with other measures (worst group, macro F1, Jaccard score) are named but not measured here, so
a mean over the others is not "Avg. 38"; and the hub's Flickr30k is Karpathy's test split of 1,000 images.
Taught by notebooks/40_reinforced_training.ipynb.
"""

from __future__ import annotations

from typing import NamedTuple


class DataCompSet(NamedTuple):
    """One of the 38."""

    key: str
    """DataComp's key."""
    name: str
    """As tables show it."""
    images: int
    """Images, or captions and images, of its test split."""
    metric: str
    """DataComp's main measure: `top1`, `mean_per_class_recall`, `mean_r1`, or one that is not measured here."""
    classes: int = 0
    """Classes; 0 where there are none."""

    @property
    def hub(self) -> str:
        """Where `wds_sets.open_wds` finds it."""
        if self.key.startswith("retrieval/"):
            return {"flickr30k": "hf:clip-benchmark/wds_flickr30k"}.get(
                self.key.removeprefix("retrieval/"), "hf:clip-benchmark/wds_mscoco_captions"
            )
        return f"hf:djghosh/wds_{self.key.removeprefix('fairness/').replace('/', '-')}_test"

    @property
    def measured(self) -> bool:
        """Whether `sets.evaluate_set` gives its main measure."""
        return self.metric in ("top1", "mean_per_class_recall", "mean_r1")


SETS = tuple(
    DataCompSet(*row)
    for row in (
        ("vtab/caltech101", "Caltech-101", 6_085, "mean_per_class_recall", 102),
        ("cifar10", "CIFAR-10", 10_000, "top1", 10),
        ("vtab/cifar100", "CIFAR-100", 10_000, "top1", 100),
        ("vtab/clevr_count_all", "CLEVR Counts", 15_000, "top1", 8),
        ("vtab/clevr_closest_object_distance", "CLEVR Distance", 15_000, "top1", 6),
        ("country211", "Country211", 21_100, "top1", 211),
        ("vtab/dtd", "Describable Textures", 1_880, "top1", 47),
        ("vtab/eurosat", "EuroSAT", 5_400, "top1", 10),
        ("fgvc_aircraft", "FGVC Aircraft", 3_333, "mean_per_class_recall", 100),
        ("food101", "Food-101", 25_250, "top1", 101),
        ("gtsrb", "GTSRB", 12_630, "top1", 43),
        ("imagenet1k", "ImageNet 1k", 50_000, "top1", 1_000),
        ("imagenet_sketch", "ImageNet Sketch", 50_889, "top1", 1_000),
        ("imagenetv2", "ImageNet v2", 10_000, "top1", 1_000),
        ("imagenet-a", "ImageNet-A", 7_500, "top1", 200),
        ("imagenet-o", "ImageNet-O", 2_000, "top1", 200),
        ("imagenet-r", "ImageNet-R", 30_000, "top1", 200),
        ("vtab/kitti_closest_vehicle_distance", "KITTI Vehicle Distance", 711, "top1", 4),
        ("mnist", "MNIST", 10_000, "top1", 10),
        ("objectnet", "ObjectNet", 18_574, "top1", 113),
        ("vtab/flowers", "Oxford Flowers-102", 6_149, "mean_per_class_recall", 102),
        ("vtab/pets", "Oxford-IIIT Pet", 3_669, "mean_per_class_recall", 37),
        ("voc2007", "Pascal VOC 2007", 14_976, "top1", 20),
        ("vtab/pcam", "PatchCamelyon", 32_768, "top1", 2),
        ("renderedsst2", "Rendered SST2", 1_821, "top1", 2),
        ("vtab/resisc45", "RESISC45", 6_300, "top1", 45),
        ("cars", "Stanford Cars", 8_041, "top1", 196),
        ("stl10", "STL-10", 8_000, "top1", 10),
        ("sun397", "SUN397", 108_754, "top1", 397),
        ("vtab/svhn", "SVHN", 26_032, "top1", 10),
        ("retrieval/flickr30k", "Flickr", 31_014, "mean_r1"),
        ("retrieval/mscoco_2014_5k_test_image_text_retrieval", "MSCOCO", 5_000, "mean_r1"),
        ("misc/winogavil", "WinoGAViL", 3_563, "jaccard_score"),
        ("wilds/iwildcam", "iWildCam", 42_791, "f1_macro", 182),
        ("wilds/camelyon17", "Camelyon17", 85_054, "top1", 2),
        ("wilds/fmow", "FMoW", 22_108, "worst_region", 62),
        ("fairness/dollar_street", "Dollar Street", 3_503, "worst_group_top5", 58),
        ("fairness/geode", "GeoDE", 12_488, "worst_group", 40),
    )
)
"""All of them, in DataComp's order."""
