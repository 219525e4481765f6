"""The stages, thin: load, call the library, save, track. The names are those of dvc.yaml, in its order."""

STAGES = (
    "sources", "ingest", "encoder", "llm", "embed", "realign", "geometry", "pretrain", "instruct", "evaluate", "report",
)  # fmt: skip
EMBED_SETS = ("texts", "images", "instruct", "benchmark", "probe")
