"""Any other image-text-to-text model (LLaVA, Qwen-VL, …) as a reference: its own processor, its own chat template.

It reads the pictures' files. Its blind floor is the same question about a picture of even mid-grey.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError

from gapbridge.artifacts import dvc_digest
from gapbridge.errors import InputError, one_line
from gapbridge.evaluate.generation import KeptAnswers, Request, answer_all

_KEY = "evaluate.model"
_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "*.model"]
_GREY_SIDE, _MID_GREY = 336, (128, 128, 128)
_DECODERS = 2

Look = Callable[[int], Image.Image]
"""The picture at a place, as RGB."""


def grey(place: int) -> Image.Image:
    """The blind floor's picture, the same everywhere."""
    del place
    return Image.new("RGB", (_GREY_SIDE, _GREY_SIDE), _MID_GREY)


@dataclass(frozen=True)
class Reference:
    """A model as it was published, answering greedily."""

    model: Any
    processor: Any
    batch_size: int
    identity: dict[str, Any]
    """Which model it is, for the figures: `name`, `architecture`, and `revision` or, of a folder, `digest`."""

    @classmethod
    def load(cls, name: str, revision: str | None, batch_size: int, root: Path = Path()) -> "Reference":
        """Open a folder (relative to `root`), or a model of the hub at that revision; on the GPU where there is one.

        Raises InputError when it cannot be had or opened, has no safetensors, needs code of its own, or has no chat
        template.
        """
        folder, identity = _folder(name, revision, root)
        model, processor = _open(folder, name)
        architecture = type(model).__name__
        return cls(model, processor, batch_size, {**identity, "architecture": architecture})

    def answers(
        self, requests: Sequence[Request], look: Look, label: str | None, kept: KeptAnswers | None = None
    ) -> list[str]:
        """The raw answer to each request about the pictures that `look` gives (`generation.answer_all`)."""
        with ThreadPoolExecutor(_DECODERS) as pool:

            def generate(batch: Sequence[Request]) -> list[str]:
                pictures = list(pool.map(look, [request.picture for request in batch]))
                questions = [request.question for request in batch]
                return self._generate(questions, pictures, batch[0].max_new_tokens)

            return answer_all(requests, generate, lambda request: len(request.question), self.batch_size, kept, label)

    @torch.inference_mode()
    def _generate(self, questions: list[str], pictures: list[Image.Image], max_new_tokens: int) -> list[str]:
        tokenizer, device, dtype = self.processor.tokenizer, self.model.device, self.model.dtype
        dialogues = [
            [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]
            for question, picture in zip(questions, pictures, strict=True)
        ]
        found = self.processor.apply_chat_template(
            dialogues,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=True,  # a marker in a question is text
            processor_kwargs={"padding": True},
        )
        inputs = {
            key: value.to(device, dtype) if value.is_floating_point() else value.to(device)
            for key, value in found.items()
        }
        generated = self.model.generate(
            **inputs,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
        told = tokenizer.batch_decode(generated[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [answer.strip() for answer in told]


def _folder(name: str, revision: str | None, root: Path) -> tuple[Path, dict[str, Any]]:
    """Where the model's files lie, and which model that is."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if (root / name).is_dir():
        return root / name, {"name": Path(name).name, "digest": dvc_digest(root / name)}
    if revision is None:
        raise InputError(f"{_KEY} {name}: no such folder; for a hub id set evaluate.revision to a commit")
    try:
        found = Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{_KEY} {name} at {revision}: cannot be had ({one_line(error)}); check the name, accept its terms and run"
            " `hf auth login`, or name a folder that it was downloaded to"
        ) from error
    return found, {"name": name, "revision": found.name}  # a snapshot lies in a folder named by its commit


def _open(folder: Path, name: str) -> tuple[Any, Any]:
    from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, AutoProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
            raise InputError(
                f"{_KEY} {name}: needs code of its own, which is not run; name one that transformers knows"
            )
        # Half precision is slow on a CPU.
        dtype = "auto" if torch.cuda.is_available() else torch.float32
        model, told = AutoModelForImageTextToText.from_pretrained(
            folder,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            dtype=dtype,
            output_loading_info=True,
        )
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{_KEY} {name}: does not open as an image-text-to-text model ({one_line(error)}); it needs config.json,"
            " safetensors and a processor"
        ) from error
    if missing := sorted(told["missing_keys"]):
        raise InputError(f"{_KEY} {name}: {len(missing)} of its weights are missing ({missing[0]}, …); copy it again")
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not (getattr(processor, "chat_template", None) or tokenizer.chat_template):
        raise InputError(f"{_KEY} {name}: its processor has no chat template; name the instruct version of the model")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), processor
