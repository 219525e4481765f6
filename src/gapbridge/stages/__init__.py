"""The stages, thin: load, call the library, save, track. The names are those of dvc.yaml, in its order."""

PURPOSES = {
    "sources": "Note size and digest of every file outside.",
    "ingest": "Check the records of every set; bad ones in quarantine.",
    "encoder": "Train the dual encoder, or pin one.",
    "llm": "Train the language model, or pin one.",
    "embed": "Make the unit vectors of one set.",
    "realign": "Fit the alignment from unpaired statistics.",
    "geometry": "Measure the gap before and after, and draw it.",
    "pretrain": "Stage 1: the adapter learns from texts alone.",
    "instruct": "Stage 2: learn to answer about pictures.",
    "evaluate": "Ask every benchmark, with the picture and without.",
    "report": "Make the page, the gallery and the model card.",
}
STAGES = tuple(PURPOSES)
EMBED_SETS = ("texts", "images", "instruct", "benchmark", "probe")
SEVERAL_PROCESSES = ("llm", "embed", "pretrain", "instruct")
"""Stages that torchrun may start on several processes: neither vectors nor losses depend on their number."""
