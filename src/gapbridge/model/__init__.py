"""The model as transformers sees it. Importing any part of it registers all of it (`gapbridge.registration`)."""

# First of all, while none of our modules is half imported: bringing the Auto classes imports the rest of this package.
from transformers import AutoModel as AutoModel
