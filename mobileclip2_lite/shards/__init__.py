"""Shards: samples in tars, their embeddings, and the data set that a training reads."""

from mobileclip2_lite.shards.samples import Pair, Sample, read_pairs, read_samples, write_shard

__all__ = ["Pair", "Sample", "read_pairs", "read_samples", "write_shard"]
