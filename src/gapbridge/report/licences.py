"""The licence of a pinned part, as its own model card states it; nothing is guessed where it states none."""

from pathlib import Path

import yaml

_CARD = "README.md"


def stated_licence(pretrained: str, revision: str | None, workspace: Path) -> str | None:
    """What the card of a pinned model says in `license`, followed by `license_name` in brackets; None without one.

    `pretrained` is as params.yaml has it (`transformers:PATH`, `hf-hub:OWNER/NAME`, `llm2clip:VISION+TEXT`, …); of two
    models both are told. Of a hub model only a card that was downloaded before is read.
    """
    names = pretrained.rpartition(":")[2].split("+")
    revisions = (revision or "").split("+") + [""] * len(names)
    found = [_stated(name, commit or None, workspace) for name, commit in zip(names, revisions, strict=False)]
    if len(found) == 1 or not any(found):
        return found[0]
    return ", ".join(f"{name}: {licence or 'none stated'}" for name, licence in zip(names, found, strict=True))


def _stated(name: str, revision: str | None, workspace: Path) -> str | None:
    folder = workspace / name
    card = folder / _CARD if folder.is_dir() else _downloaded(name, revision)
    return _licence(card) if card is not None and card.is_file() else None


def _downloaded(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, _CARD, revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _licence(card: Path) -> str | None:
    """From the YAML header, between two lines of three dashes."""
    text = card.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("---"):
        return None
    try:
        header = yaml.safe_load(text.split("---", 2)[1])
    except (yaml.YAMLError, IndexError):
        return None
    if not isinstance(header, dict) or not isinstance(header.get("license"), str):
        return None
    name = header.get("license_name")
    return f"{header['license']} ({name})" if isinstance(name, str) else header["license"]
