"""Multimodal models from unpaired texts and images, by closing the modality gap in closed form.

Importing this package is enough for transformers to know its models; it imports neither torch nor transformers.
"""

from importlib import import_module

__version__ = "0.1.0"

# By name: the parts of this package do not depend on the model because the package makes it known.
import_module("gapbridge.registration").install()
