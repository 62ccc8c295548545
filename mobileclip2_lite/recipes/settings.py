"""Every setting of every stage, as frozen dataclasses.

A recipe is plain data: no stage reads a global. Field docs give the unit and the source: "paper" is MobileCLIP2 (arXiv
2508.20691) or MobileCLIP (arXiv 2311.17049), "ours" is this project's choice, measured in docs/lab_log.md where it
matters.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AltText:
    """How the embedded world's web describes its pictures: the share of each kind of noise (ours)."""

    mismatch: float = 0.3
    """Share of alt-texts that describe another picture."""
    filename: float = 0.1
    """Share written as a file name (`IMG_2041_red_apple.jpg`)."""
    boilerplate: float = 0.2
    """Share with sales or download talk around the name (`apple vector free download`)."""
    fragment: float = 0.1
    """Share that keeps only one word of a name of several words."""
    listing: float = 0.3
    """Share that names every object of the scene instead of one of them."""
    colour: float = 0.1
    """Share that names the background's colour: the exception, or colour alone would solve the contrast."""


@dataclass(frozen=True)
class World:
    """The embedded world: which names exist and how scenes are drawn and described (ours)."""

    names: int = 120
    """Number of object names, taken from the front of the fixed order of `emoji_world.names()`; 0 for all."""
    image_size: int = 96
    """Side of a rendered scene in pixels; larger than the student's so that crops keep detail."""
    max_objects: int = 3
    """Most objects in one scene (1 to 4)."""
    seed: int = 0
    """Seed of the training stream; test sets do not depend on it."""
    alt_text: AltText = AltText()
    """Noise of the alt-texts."""


@dataclass(frozen=True)
class Pairs:
    """Where image-text pairs come from and how many."""

    source: str = "emoji_world"
    """`emoji_world`, a folder (with a folder a class: `FOLDER?text=folder`), a `.csv`/`.jsonl`/`.parquet` file,
    WebDataset tars (`x/{00..03}.tar`) or `hf:NAME`."""
    count: int = 8_000
    """Most pairs to take; 0 for all."""
    samples_per_shard: int = 1_000
    """Pairs in one tar."""
    image_key: str | None = None
    """Column with the image; None finds it."""
    text_key: str | None = None
    """Column with the text; None finds it."""
    group: bool = True
    """Rows of one image (one file, or the same bytes in one shard) become one sample with several texts; off: a sample
    a row."""


@dataclass(frozen=True)
class Filter:
    """DFN-style filtering: a small CLIP trained on clean pairs scores the web's pairs, and the best are kept."""

    scorer: str = "lite-dfn"
    """Model that scores: any name or folder of `models.zoo`, or an embedded one of `data/`."""
    keep: float = 0.6
    """Share of the pairs to keep, best first; 1 leaves the stage out, 0 keeps by `threshold` (DFN: about 15 %)."""
    threshold: float = 0.0
    """Least cosine of picture and text, where `keep` is 0."""
    batch_size: int = 256
    """Pairs a forward pass; it does not change the result."""


@dataclass(frozen=True)
class Generate:
    """How a captioner writes."""

    captions: int = 5
    """Captions an image (paper: 5)."""
    method: str = "sample"
    """`sample` (paper), `greedy` or `beam`."""
    temperature: float = 1.0
    """Divides the logits before sampling; 0 is `greedy` (paper: not given)."""
    top_p: float = 0.9
    """Sample from the most probable tokens that hold this share of the probability (paper: 0.9); 1 for all."""
    top_k: int = 0
    """Sample from the so many most probable tokens; 0 for all."""
    beams: int = 5
    """Hypotheses of beam search; the best `captions` of them are given."""
    repetition_penalty: float = 1.0
    """Divides the positive and multiplies the negative logits of tokens that were written already; 1 is off."""
    min_length: int = 0
    """Least tokens before the end token."""
    max_length: int = 0
    """Most tokens, start and end included; 0 for the model's context."""


@dataclass(frozen=True)
class Caption:
    """Synthetic captions for a folder of pairs."""

    captioners: tuple[str, ...] = ("lite-captioner-short", "lite-captioner-relational")
    """Captioners: names of `data/captioners/`, or of `models.zoo`; each writes `generate.captions` captions."""
    generate: Generate = Generate()
    """Decoding."""
    batch_size: int = 64
    """Pictures a forward pass; it does not change the result."""
    seed: int = 0
    """Seed of the sampling."""


@dataclass(frozen=True)
class Augment:
    """Strong, replayable augmentation: torchvision's RandomResizedCrop and RandAugment (paper)."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Area of the crop as a share of the source (paper: torchvision's default)."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Aspect ratio of the crop, width / height (paper: torchvision's default)."""
    operations: int = 2
    """RandAugment operations a view; 0 switches it off (paper: 2)."""
    magnitude: int = 9
    """RandAugment magnitude, 0 to 30 (paper: 9)."""
    flip: float = 0.0
    """Probability of a horizontal flip (off)."""
    erase: float = 0.0
    """Probability of random erasing (off)."""


@dataclass(frozen=True)
class Reinforce:
    """What is stored with every pair, once."""

    teachers: tuple[str, ...] = ("lite-teacher-conv", "lite-teacher-se")
    """Teachers: names of `models.teachers`."""
    views: int = 5
    """Stored augmentations an image (paper: 30 for 12M pairs, 2 for 2B; gains saturate at about 5)."""
    augment: Augment = Augment()
    """How views are drawn."""
    storage: str = "bf16"
    """`bf16` (paper), `int8` or `int6` with row scales, or `fp32`."""
    layout: str = "native"
    """`native`, or `datacompdr` for the official layout."""
    batch_size: int = 256
    """Images gathered before the teachers see them; it does not change the result."""
    seed: int = 0
    """Seed of the views; the only randomness of this stage."""


@dataclass(frozen=True)
class Train:
    """One training: the control when `distill` is 0, the reinforced student when it is 1."""

    model: str = "lite-mci-s"
    """Student: any name of `models.zoo`."""
    samples: int = 60_000
    """Seen samples (steps times batch size)."""
    batch_size: int = 256
    """Samples a step, over all processes (paper: 8,192 in ablations, 65,536 in full runs)."""
    start: str = ""
    """Folder, weights file or `hf-hub:OWNER/NAME` of a model of the same architecture to start from; empty for new
    weights."""
    image_size: int = 0
    """Side of the student's images in pixels; 0 for the model's own."""
    text_from: str = ""
    """Model whose text tower, tokenizer and embedding size the student takes over: a teacher by name, a folder, or
    `MODEL@TAG`; empty for its own."""
    lock: tuple[str, ...] = ()
    """Towers that stay as they start: `image` or `text` (LiT)."""
    distill: float = 1.0
    """Lambda: weight of the distillation loss, 1 - lambda of the contrastive loss (paper: 1)."""
    gated: bool = False
    """Weigh each pair's contrastive term by the stored teachers' belief in the pair (ours; needs 0 < `distill` < 1)."""
    hard_negatives: float = 0.0
    """Weight of preferring each caption to itself with colours exchanged or a relation mirrored (ours); 0 for none."""
    candidates: int = 1
    """Batches of which each step takes one: the pairs that the student finds hard and the teachers easy (ACID); 1 takes
    every sample. `samples` counts those that are trained on."""
    contrast: float = 1.0
    """Weight of the whole of that beside the captioning loss (CoCa: 1)."""
    captioning: float = 0.0
    """Weight of the captioning loss, for models with a text decoder (CoCa: 2); 0 for none."""
    views: str = "stored"
    """`stored` replays the reinforced views; `weak` draws a light crop (0.9-1 of the area) instead."""
    teachers: tuple[str, ...] = ()
    """Teachers to distil from; () for all that the data was reinforced with."""
    online: bool = False
    """Run the teachers during training on the same views instead of reading their stored embeddings (to compare)."""
    captioners: tuple[str, ...] = ()
    """Captioners whose synthetic captions make a second batch, losses summed; () for real captions only."""
    texts: str = "sum"
    """What a sample with a synthetic caption teaches: the `sum` of the losses of its real text and of the caption
    (paper), the `synthetic` one alone, or `one` of the two, drawn in each epoch."""
    max_views: int = 0
    """Use only the first so many stored views of a sample; 0 for all (paper: gains saturate at about 5)."""
    max_captions: int = 0
    """Use only the first so many captions of each captioner; 0 for all (paper: gains saturate at about 2)."""
    logit_scales: tuple[tuple[str, float], ...] = ()
    """(teacher, logit scale) that differ from the teacher's card."""
    loss: str = "softmax"
    """`softmax` (paper) or `sigmoid` (SigLIP with soft targets)."""
    nested: tuple[int, ...] = ()
    """First dimensions on which the loss is taken too, so that embeddings may be cut to them (Matryoshka; ours)."""
    optimizer: str = "adamw"
    """`adamw` (paper), or `nmuon`: timm's Muon for matrices and dense kernels, NAdamW for the rest (ours)."""
    learning_rate: float = 1e-3
    """Peak learning rate (paper: 1e-3)."""
    warmup: float = 0.1
    """Share of the steps with linear warm-up (paper: 2k to 10k of 200k)."""
    final_learning_rate: float = 0.0
    """Where the cosine ends (paper: 1e-6 for S0, S2 and B)."""
    weight_decay: float = 0.2
    """Weight decay of matrices and kernels; none on biases, norms and scales (paper: 0.2)."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas (paper)."""
    grad_clip: float = 1.0
    """Largest gradient norm (paper: 1.0); 0 leaves gradients as they are."""
    max_logit_scale: float = 100.0
    """The student's learned logit scale stays at most here (CLIP; open_clip)."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, which is then what is evaluated and saved; 0 for none."""
    precision: str = "bf16"
    """`bf16` autocast (paper; a CPU without bf16 instructions takes fp32), `fp16` with loss scaling, or `fp32`."""
    accumulate: int = 1
    """Parts of a batch, each contrasted by itself, whose gradients are averaged; 1 contrasts the whole (paper)."""
    forward_chunk: int = 0
    """Exact gradient caching: samples of a process with activations at a time; 0 for all. Same gradients."""
    loss_chunk: int = 0
    """Rows of the similarity matrices at a time; 0 for all. Same loss, less memory."""
    recompute: bool = False
    """Gradient checkpointing: the towers' activations are computed again in the backward pass instead of kept."""
    parallel: str = "ddp"
    """Of several processes, `ddp`: each holds the whole model; or `fsdp`: each a part of every layer, for towers that
    do not fit (FSDP2). The same training, as far as it was run: over gloo on CPUs, never over NCCL on GPUs."""
    sync_batch_norm: bool = False
    """Batch norms see the samples of all processes, not only their own (open_clip's default: their own)."""
    compile: bool = False
    """`torch.compile` both towers: slow start, faster steps on a GPU."""
    trim_text: bool = True
    """Cut texts to the longest of the batch where that is exact (causal text towers)."""
    evaluate_every: int = 0
    """Steps between evaluations that draw the learning curve; 0 for the end only."""
    stop_on: str = ""
    """Early stopping: the evaluation's number that must not rise (`caption_loss`); the best weights are kept."""
    patience: int = 2
    """Evaluations without a better `stop_on` after which the training ends."""
    checkpoint_every: int = 100
    """Steps between checkpoints; 0 for none, so that an interrupted training starts anew."""
    log_every: int = 10
    """Steps between lines of `log.jsonl`."""
    tracker: str = "auto"
    """`auto` (TensorBoard if installed), `none`, `tensorboard`, `wandb` or `trackio`."""
    workers: int = 1
    """Loader processes; they do not change the order of samples."""
    threads: int = 0
    """CPU threads of the training itself; 0 for OMP_NUM_THREADS, or all cores."""


@dataclass(frozen=True)
class Compute:
    """On what a stage's models run. Not part of a recipe: only `precision` changes what is made."""

    device: str = "auto"
    """`cpu`, `cuda`, `cuda:N`, `mps`; `auto` takes the GPU, if the worker's machine has one."""
    precision: str = "fp32"
    """`fp32`, or `bf16` for autocast: faster on GPUs; other bytes, so other work."""
    threads: int = 0
    """Threads that decode and cut images ahead of the models (reinforce)."""


@dataclass(frozen=True)
class Temperature:
    """How each teacher's logit scale is found: short trainings of the student from that teacher alone."""

    scales: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0, 80.0)
    """Logit scales tried first (ours: doubling; the paper gives the chosen scales, not its sweep)."""
    refine: int = 1
    """Rounds of adding the geometric means between the best scale and its neighbours."""
    samples: int = 20_000
    """Seen samples of a full training in the sweep."""
    first: float = 0.25
    """Share of `samples` of the first, pruning round, one seed a scale; 0 prunes nothing."""
    keep: float = 0.6
    """Share of the scales that go on after the first round."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the full trainings."""
    metric: str = "zero_shot"
    """What is compared: a name that the evaluation gives, larger is better."""
    pairs: int = 2_048
    """Pairs for the predictors."""


@dataclass(frozen=True)
class Evaluate:
    """Sizes of the test and validation sets of the embedded world (ours)."""

    renders: int = 20
    """Zero-shot, test: images a name."""
    shift_renders: int = 5
    """Zero-shot under each shift, test: images a name."""
    scenes: int = 2_000
    """Retrieval, test: scenes, each with five clean captions."""
    hard_negatives: int = 1_000
    """Attribute binding and spatial relations, test: scenes each."""
    val_renders: int = 5
    """Zero-shot, shifted or not, validation: images a name."""
    val_scenes: int = 500
    """Retrieval, validation: scenes."""
    val_hard_negatives: int = 250
    """Binding and relations, validation: scenes each."""
    batch_size: int = 256
    """Images or texts a forward pass."""

    def counts(self, split: str) -> dict[str, int]:
        """`renders`, `shift_renders`, `scenes` and `hard_negatives` of `val` or `test`.

        Raises:
            ValueError: there is no such split.
        """
        match split:
            case "test":
                names = ("renders", "shift_renders", "scenes", "hard_negatives")
            case "val":
                names = ("val_renders", "val_renders", "val_scenes", "val_hard_negatives")
            case _:
                raise ValueError(f"split {split!r}: val or test")
        sizes = (getattr(self, name) for name in names)
        return dict(zip(("renders", "shift_renders", "scenes", "hard_negatives"), sizes, strict=True))


@dataclass(frozen=True)
class Recipe:
    """The whole way, stage by stage."""

    name: str = "lite"
    """Name; also the folder below `runs/`."""
    world: World = World()
    """The embedded world that pairs and test sets come from."""
    pairs: Pairs = Pairs()
    """Image-text pairs."""
    filter: Filter = Filter(keep=1.0)
    """Filtering of the pairs."""
    caption: Caption = Caption(captioners=())
    """Synthetic captions; without captioners the stage is left out."""
    reinforce: Reinforce = Reinforce()
    """Dataset reinforcement."""
    precision: str = "bf16"
    """Of the teachers' passes: `bf16` (ours: docs/lab_log.md; a CPU without bf16 instructions takes fp32) or `fp32`."""
    control: Train = Train(distill=0.0, views="weak")
    """Plain contrastive training on the same pairs."""
    student: Train = Train()
    """Training on the reinforced pairs."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings."""
    evaluate: Evaluate = Evaluate()
    """Test sets."""
