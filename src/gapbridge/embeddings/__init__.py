"""Encoders of texts and pictures, and the vectors they give."""

from gapbridge.embeddings.adapters import ADAPTERS

__all__ = ["ADAPTERS"]
