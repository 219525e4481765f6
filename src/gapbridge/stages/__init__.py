"""The stages, thin: load, call the library, save, track. The names are those of dvc.yaml, in its order."""

STAGES = (
    "sources", "ingest", "encoder", "llm", "embed", "realign", "geometry", "pretrain", "instruct", "evaluate", "report",
)  # fmt: skip
EMBED_SETS = ("texts", "images", "instruct", "benchmark", "probe")
SEVERAL_PROCESSES = ("llm", "pretrain", "instruct")
"""Stages that torchrun may start on several processes: there the loss does not depend on their number."""
