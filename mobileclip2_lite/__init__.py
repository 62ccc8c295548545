"""mobileclip2_lite: reinforce a data set once, train small CLIP models from it many times."""

__version__ = "0.1.0"
