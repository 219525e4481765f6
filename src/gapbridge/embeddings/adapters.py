"""The kinds of encoders that can be named, without importing any of them."""

ADAPTERS = {
    "open_clip": "any model of open_clip: local-dir:PATH, hf-hub:OWNER/NAME, ARCHITECTURE/TAG",
    "transformers": "CLIP, SigLIP and SigLIP 2 of one resolution: transformers:PATH, transformers:OWNER/NAME",
    "llm2clip": "LLM2CLIP's CLIP-like models with their Llama: llm2clip:VISION+TEXT, each a path or OWNER/NAME",
    "vectors": "none: every source brings its vectors along, and vectors:NAME says what made them",
}
"""The kinds of encoders that can be pinned, with the names in params.yaml (`encoder.pretrained`) that they go by."""
