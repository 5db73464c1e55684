"""Turns traced graphs into ones of MXNet's own operators, and into ONNX."""

from fastrnn.export.graphs import portable

__all__ = ["portable"]
