"""Samples and tars of the published reinforced sets, written without the package's own code."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import numpy as np
import torch
from doubles.fake_teachers import picture

TEACHERS = {"first": 6, "second": 4}
"""Teacher -> dimension."""
PARAMETERS = [[[3, 5, 20, 30], [[3, 30.453172], [5, -9.0]]], [[0, 0, 44, 60], [[11, 178.5], [4, -45.0]]]]


def official_sample(number, form="v1", paug="list", dtype="bf16", image=True, captions=3):
    """One sample as the published sets have it (v1) or as the second generation's generator writes it (v2)."""
    chance = np.random.default_rng(number)
    image_emb = chance.normal(size=(2, 10)).astype(np.float32)
    text_emb = chance.normal(size=(1, 10)).astype(np.float32)
    syn_emb = chance.normal(size=(captions, 10)).astype(np.float32)
    key = "syn_text" if form == "v1" else "syn_text_dfn"
    emb = {"image_emb": image_emb, "text_emb": text_emb}
    if form == "v1":
        emb["text_emb"] = np.concatenate([text_emb, syn_emb])
    else:
        emb[f"{key}_emb"] = syn_emb
    out = {"txt": f"text {number}".encode(), "json": json.dumps({"uid": f"uid{number}"}).encode()}
    out["syn.json"] = json.dumps({key: [f"caption {i} of {number}" for i in range(captions)]}).encode()
    parameters = json.dumps(PARAMETERS) if paug == "string" else PARAMETERS
    out["paug.json"] = json.dumps({"param_aug": parameters}).encode()
    out["url.txt"] = f"https://example.org/{number}.jpg".encode()
    buffer = io.BytesIO()
    if dtype == "bf16":
        torch.save({k: torch.tensor(v, dtype=torch.bfloat16) for k, v in emb.items()}, buffer)
        out["pth.gz"] = gzip.compress(buffer.getvalue())
    else:
        np.savez(buffer, **emb)
        out["npz"] = buffer.getvalue()
    if image:
        out["jpg"] = picture(number)
    return out, image_emb, text_emb, syn_emb


def write_tar(path, samples):
    """A tar of samples: key -> {extension: bytes}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, parts in samples.items():
            for extension, data in parts.items():
                entry = tarfile.TarInfo(f"{key}.{extension}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return path
