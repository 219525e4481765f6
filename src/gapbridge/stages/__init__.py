"""The stages, thin: load, call the library, save, track. The names are those of dvc.yaml, in its order."""

STAGES = (
    "sources", "ingest", "encoder", "llm", "embed", "realign", "geometry", "pretrain", "instruct", "evaluate", "report",
)  # fmt: skip
EMBED_SETS = ("texts", "images", "instruct", "benchmark", "probe")
SEVERAL_PROCESSES = ("llm", "embed", "pretrain", "instruct")
"""Stages that torchrun may start on several processes: neither vectors nor losses depend on their number."""
