"""LLM2CLIP (arXiv 2411.04997): a CLIP image half, and a Llama that reads both ways as the text half.

The image checkpoint (microsoft/LLM2CLIP-Openai-L-14-336 is one) holds transformers' CLIP vision model with its
projection, and a `text_adapter` that brings the mean of the Llama's last states to the width of the pictures. Texts are
read as llm2vec reads them: as a user's message, padded on the left, the mean over the message's own tokens. None of
the checkpoints' code is run.
Shapes: `n` texts, `b` rows of one batch, `d` width, `t` tokens, `h` width of the Llama, `s` pixels a side.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from PIL import Image
from torch import Tensor, nn

from gapbridge.embeddings.open_clip_towers import tokenizer_content
from gapbridge.embeddings.towers import ImageHalf
from gapbridge.embeddings.transformers_towers import (
    demand_complete,
    half_of,
    loaded,
    padded_length,
    read_tokenizer,
    token_counts,
    vision_architecture,
)
from gapbridge.errors import ArtifactError, InputError
from gapbridge.hub import fetched

CONTEXT_LENGTH = 512
_HEAD = "<|start_header_id|>user<|end_header_id|>\n\n"
_TAIL = "<|eot_id|>"
_ADAPTER = "text_adapter."
_NO_IMAGE_HALF = (r"^text_adapter\.", "^logit_scale$")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*.json", "*.safetensors"]


class Llm2ClipWords:
    """`Words` of an LLM2CLIP pair: the tokenizer of its Llama."""

    def __init__(self, name: str, revision: str | None) -> None:
        """`name` is VISION+TEXT, each a folder or a hub id; `revision` the commits of the two, joined alike.

        Raises InputError for malformed names and other kinds of models, ArtifactError where files are missing.
        """
        self._vision, self._text = _folders(name, revision)
        self._config = _language_config(self._text)
        self._tokenizer = _tokenizer(self._text)
        self.context_length = CONTEXT_LENGTH
        self.wording: Sequence[str] = (json.dumps([_HEAD, _TAIL, CONTEXT_LENGTH]), tokenizer_content(self._tokenizer))

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens (n,) of the whole texts as messages."""
        return token_counts(self._tokenizer, [_HEAD + message for message in _messages(texts)])

    def places(self, texts: Sequence[str]) -> list[int]:
        """A text is padded to the next of a few lengths: a Llama is too large to read 512 places for each."""
        return [padded_length(count, CONTEXT_LENGTH) for count in self.lengths(texts)]

    def tokens(self, texts: Sequence[str], places: int) -> dict[str, Any]:
        """Ids and their mask (b, t), padded on the left, and `own`, the mask of the places that the mean is over."""
        messages = _messages(texts)
        found = self._tokenizer(
            [_HEAD + message for message in messages],
            padding="max_length", padding_side="left", truncation=True, max_length=places, return_tensors="pt",
        )  # fmt: skip
        # As in llm2vec, so many places from the right as the message has tokens, though truncation may have cut some.
        counts = self._tokenizer(messages, truncation=True, max_length=places, add_special_tokens=False).input_ids
        from_right = torch.arange(places).flip(0)
        own = from_right < torch.tensor([len(ids) for ids in counts])[:, None]
        return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"], "own": own}


class Llm2ClipTowers(Llm2ClipWords):
    """`Towers` of an LLM2CLIP image checkpoint and its Llama."""

    def __init__(self, name: str, revision: str | None, device: str) -> None:
        """As `Llm2ClipWords`; raises InputError for other kinds of models, ArtifactError where weights do not fit."""
        super().__init__(name, revision)
        self._processor = _processor(self._vision)
        self.image = _image_half(self._vision, self._processor)
        visual, self._language = self.image.visual, _language(self._text, self._config)
        self._adapter = _adapter(self._vision, self._language.config.hidden_size, visual.config.projection_dim)
        halves = {"visual": visual, "adapter": self._adapter, "language": self._language}
        self.model = nn.ModuleDict(halves).eval().to(device)
        self.width = int(self.image.architecture["embed_dim"])
        config = self._language.config
        about = [config.rope_parameters, config.rms_norm_eps, config.hidden_act, _HEAD, _TAIL, CONTEXT_LENGTH]
        self.description: Sequence[str] = (
            json.dumps(self.image.preprocess_cfg["transformers"], sort_keys=True),
            json.dumps(["LLM2CLIP", *about], sort_keys=True),
            tokenizer_content(self._tokenizer),
        )

    def pixels(self, image: Image.Image) -> Tensor:
        """(3, s, s)."""
        return self._processor(images=image, return_tensors="pt")["pixel_values"][0]

    def text_features(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """(b, d)."""
        mask = tokens["attention_mask"]
        # The first token of a text stands at place 0, however much padding is before it.
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        states = self._language(
            input_ids=tokens["input_ids"], attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state.float()
        own = tokens["own"][..., None]
        mean = (states * own).sum(1) / own.sum(1)
        return self._adapter(nn.functional.normalize(mean, dim=-1))

    def image_features(self, pixels: Tensor) -> Tensor:
        """(b, d)."""
        visual = self.image.visual
        return visual(pixel_values=pixels.to(visual.dtype)).image_embeds


class _Block(nn.Module):
    """A residual block of the adapter: norm, then a layer twice as wide and back; names as in the checkpoint."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fn = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Identity(), nn.Linear(inner, width))
        self.ln = nn.LayerNorm(width)

    def forward(self, rows: Tensor) -> Tensor:
        """(b, h) to (b, h)."""
        return rows + self.fn(self.ln(rows))


class _Adapter(nn.Module):
    """Blocks, a norm and a projection from the Llama's width to the pictures'."""

    def __init__(self, width: int, inner: int, blocks: int, out: int, bias: bool) -> None:
        super().__init__()
        head = [nn.LayerNorm(width), nn.Linear(width, out, bias=bias)]
        self.adaptor = nn.Sequential(*(_Block(width, inner) for _ in range(blocks)), *head)

    def forward(self, rows: Tensor) -> Tensor:
        """(b, h) to (b, d)."""
        return self.adaptor(rows.to(next(self.adaptor[-1].parameters()).dtype))


def _messages(texts: Sequence[str]) -> list[str]:
    return [text.rstrip() + _TAIL for text in texts]


def _folders(name: str, revision: str | None) -> tuple[Path, Path]:
    """Where the files of both checkpoints lie."""
    parts, commits = name.split("+"), revision.split("+") if revision else ["", ""]
    if len(parts) != 2 or not all(parts):
        raise InputError(f"encoder.pretrained: llm2clip:{name} does not name two models; give llm2clip:VISION+TEXT")
    if len(commits) != 2:
        raise InputError(f"encoder.revision: {revision!r} is not one commit for each model; give VISION+TEXT or null")
    vision, text = (_folder(part, commit or None) for part, commit in zip(parts, commits, strict=True))
    return vision, text


def _folder(name: str, revision: str | None) -> Path:
    if Path(name).is_dir():
        if revision:
            raise InputError(f"encoder.revision: {name} is a folder and has no revisions; leave its part empty")
        return Path(name)
    if not _HUB_ID.fullmatch(name):
        raise ArtifactError(f"{name}: there is no such folder; name a folder or a hub id, OWNER/NAME")
    return fetched(name, revision, _HUB_FILES)


def image_half(name: str, revision: str | None) -> ImageHalf:
    """The CLIP vision model of the pair alone; errors as `Llm2ClipTowers` has them."""
    vision, _ = _folders(name, revision)
    return _image_half(vision, _processor(vision))


def _image_half(folder: Path, processor: Any) -> ImageHalf:
    """The CLIP vision model with its projection."""
    from transformers import CLIPVisionModelWithProjection

    config = _vision_config(folder)
    model, told = loaded(
        str(folder),
        lambda: half_of(CLIPVisionModelWithProjection, _NO_IMAGE_HALF).from_pretrained(
            folder, config=config.vision_config, use_safetensors=True, output_loading_info=True
        ),
    )
    demand_complete(str(folder), told)
    architecture = vision_architecture("clip", model.config)
    settings = {"size": architecture["image_size"], "transformers": json.loads(processor.to_json_string())}
    return ImageHalf(model.eval(), architecture, settings)


def _vision_config(folder: Path) -> Any:
    from transformers import CLIPConfig

    about = loaded(str(folder), lambda: CLIPConfig.get_config_dict(folder)[0])
    kinds = about.get("architectures") or []
    if about.get("model_type") != "clip" or any(kind.startswith("Eva") for kind in kinds):
        found = kinds[0] if kinds else f"a model of type {about.get('model_type')}"
        raise InputError(
            f"encoder.pretrained: {folder} is {found}; of LLM2CLIP's image halves the OpenAI ones can be read, such as"
            " microsoft/LLM2CLIP-Openai-L-14-336"
        )
    about.pop("auto_map", None)
    config = CLIPConfig.from_dict(about)
    config.vision_config.projection_dim = config.projection_dim
    return config


def _processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor, CLIPImageProcessor

    if (folder / "preprocessor_config.json").is_file():
        return loaded(str(folder), lambda: AutoImageProcessor.from_pretrained(folder, trust_remote_code=False))
    # The published folders have none, and their model card takes OpenAI's, which is the class's own at that size.
    side = _vision_config(folder).vision_config.image_size
    return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def _adapter(folder: Path, width: int, out: int) -> _Adapter:
    """The text adapter inside the image checkpoint, as many blocks of whatever inner width as it has."""
    state = _adapter_state(folder)
    blocks = len({key.split(".")[1] for key in state if ".fn." in key})
    inner = state.get("adaptor.0.fn.0.weight")
    if inner is None:
        raise ArtifactError(f"{folder}: has no text adapter, so it is no model of LLM2CLIP; name one")
    adapter = _Adapter(width, len(inner), blocks, out, f"adaptor.{blocks + 1}.bias" in state).to(inner.dtype)
    wanted = adapter.state_dict()
    misshapen = {key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape}
    told = {"missing_keys": wanted.keys() - state.keys(), "unexpected_keys": state.keys() - wanted.keys()}
    demand_complete(f"{folder}: the text adapter", {**told, "mismatched_keys": misshapen})
    adapter.load_state_dict(state)
    return adapter


def _adapter_state(folder: Path) -> dict[str, Tensor]:
    state = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(path, framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith(_ADAPTER)]  # noqa: SIM118, no mapping
            state.update({name.removeprefix(_ADAPTER): tensors.get_tensor(name) for name in names})
    return state


def _language_config(folder: Path) -> Any:
    """The settings of the text half, which is a Llama, reading both ways."""
    from transformers import AutoConfig

    config = loaded(str(folder), lambda: AutoConfig.from_pretrained(folder, trust_remote_code=False))
    if config.model_type != "llama":
        raise InputError(
            f"encoder.pretrained: {folder} is a model of type {config.model_type}; LLM2CLIP's text half is a Llama"
        )
    config.is_causal = False
    return config


def _language(folder: Path, config: Any) -> Any:
    from transformers import AutoModel

    model, told = loaded(
        str(folder),
        lambda: AutoModel.from_pretrained(
            folder, config=config, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        ),
    )
    demand_complete(str(folder), {**told, "unexpected_keys": set(told["unexpected_keys"]) - {"lm_head.weight"}})
    return model


def _tokenizer(folder: Path) -> Any:
    tokenizer = read_tokenizer(str(folder))
    tokenizer.pad_token = tokenizer.eos_token
    if len(tokenizer.tokenize(_TAIL)) != 1:
        raise ArtifactError(f"{folder}: its tokenizer has no {_TAIL}, as Llama 3's does; name LLM2CLIP's text model")
    return tokenizer
