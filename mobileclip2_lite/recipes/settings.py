"""Settings of the stages that train and measure, and the recipe that holds those of all stages, as frozen dataclasses.

A recipe is plain data: no stage reads a global. Field docs give the unit and the source: "paper" is MobileCLIP2 (arXiv
2508.20691) or MobileCLIP (arXiv 2311.17049), "ours" is this project's choice, measured in docs/lab_log.md where it
matters. `data_settings` has those of the stages that make the data.
"""

from __future__ import annotations

from dataclasses import dataclass

from mobileclip2_lite.recipes.data_settings import Caption, Filter, Pairs, Reinforce, World


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
    """`cpu`, `cuda`, `cuda:N`, `mps`; `auto` takes a CUDA GPU, if the worker's machine has one."""
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
    """Share of `samples` of the first, pruning round, one seed a scale; 0 or 1 prunes nothing."""
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
