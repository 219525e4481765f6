"""gapbridge: multimodal language models from unpaired texts and images (arXiv 2602.07026)."""

__version__ = "0.1.0"
