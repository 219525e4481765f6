"""The language model's folder: an ordinary Hugging Face one (safetensors, tokenizer, chat template), or a pin.

A model that was trained here is written whole; a pinned one is named by revision and by the digest of its weights.
Nothing later knows which it was.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from gapbridge.artifacts import file_digest, read_json, write_json
from gapbridge.errors import ArtifactError, InputError
from gapbridge.hub import fetched

FORMAT_VERSION = 1


def save_llm(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write a trained model as a Hugging Face folder with `llm.json` beside its weights."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors leaves its files readable by their owner alone
    _write_card(folder, None, None, weights_fingerprint(folder))


def pin_llm(folder: Path, pretrained: str, revision: str | None) -> Any:
    """Write `llm.json` alone, for a model that lies in a folder or on the hub; gives back its tokenizer.

    Raises InputError for a name without folder and revision and where there are no safetensors, ArtifactError when the
    model cannot be had or does not open.
    """
    source = _snapshot(pretrained, revision)
    fingerprint = weights_fingerprint(source)
    _, tokenizer = _open(source)
    _write_card(folder, pretrained, revision, fingerprint)
    return tokenizer


def load_llm(folder: Path) -> tuple[Any, Any]:
    """The causal language model (float32, evaluation mode) and tokenizer that `folder` names.

    Raises ArtifactError when the weights are not those that the stage `llm` saw.
    """
    card = read_json(folder / "llm.json")
    if card.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(f"{folder}: llm.json has another format version; run the stage llm again")
    source = folder if card["pretrained"] is None else _snapshot(card["pretrained"], card["revision"])
    if weights_fingerprint(source) != card["fingerprint"]:
        raise ArtifactError(f"{source}: its weights are not those that llm.json names; run the stage llm again")
    return _open(source)


def weights_fingerprint(folder: Path) -> str:
    """sha256 over the names and digests of the safetensors files of `folder`.

    Raises InputError when there are none.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: holds no safetensors weights; pin a model that has them")
    return hashlib.sha256("".join(f"{file.name} {file_digest(file)}\n" for file in files).encode()).hexdigest()


def hide_kernel_notice() -> None:
    """Let transformers not recommend a kernel for the short convolutions: on a CPU there is none to install."""
    logger = logging.getLogger("transformers.integrations.hub_kernels")
    if _is_no_kernel_notice not in logger.filters:
        logger.addFilter(_is_no_kernel_notice)


def _write_card(folder: Path, pretrained: str | None, revision: str | None, fingerprint: str) -> None:
    card = {"pretrained": pretrained, "revision": revision, "fingerprint": fingerprint}
    write_json(folder / "llm.json", {"format_version": FORMAT_VERSION, **card})


def _snapshot(pretrained: str, revision: str | None) -> Path:
    """The local folder of a pinned model; a hub id needs a revision, or the weights could change unseen."""
    if Path(pretrained).is_dir():
        return Path(pretrained)
    if revision is None:
        raise InputError(f"llm.pretrained {pretrained}: no such folder; for a hub id set llm.revision to a commit")
    return fetched(pretrained, revision, ("*.safetensors", "*.json", "*.jinja"))


def _open(source: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            source, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{source}: does not open as a causal language model ({reason})") from error
    hide_kernel_notice()
    return model.eval(), tokenizer


def _is_no_kernel_notice(record: logging.LogRecord) -> bool:
    return "causal_conv1d" not in record.getMessage()
