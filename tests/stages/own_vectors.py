"""What somebody has who ran clip-retrieval and has no encoder at hand: its folders, questions, and a language model.

Vectors are noise about two means, one a modality; the colour of a thing is in the noise. Shapes: `n` rows, `d` width.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from gapbridge.train.tokens import train_tokenizer

WIDTH = 16
COLOURS = ("red", "green", "blue", "black")
_RANDOM = np.random.default_rng(3)
_CENTRES = {"text": _RANDOM.normal(size=WIDTH) * 2, "img": _RANDOM.normal(size=WIDTH) * 2}
_DIRECTIONS = _RANDOM.normal(size=(len(COLOURS), WIDTH))


def rows(side: str, colours: Sequence[int], seed: int) -> np.ndarray:
    """Vectors (n, d) of things of these colours, not of unit length."""
    noise = np.random.default_rng(seed).normal(scale=0.4, size=(len(colours), WIDTH))
    return (_CENTRES[side] + _DIRECTIONS[list(colours)] + noise).astype(np.float32)


def write_retrieval(folder: Path, sides: dict[str, np.ndarray], table: dict[str, list[str]], part_rows: int) -> None:
    """clip-retrieval's folders: `img_emb/img_emb_0.npy`, `text_emb/…`, and pandas' `metadata/metadata_0.parquet`."""
    total = len(next(iter(sides.values())))
    for number, start in enumerate(range(0, total, part_rows)):
        part = slice(start, start + part_rows)
        for side, matrix in sides.items():
            path = folder / f"{side}_emb" / f"{side}_emb_{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, matrix[part].astype(np.float16))
        path = folder / "metadata" / f"metadata_{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pandas.DataFrame({name: column[part] for name, column in table.items()}).to_parquet(path)


def write_all(folder: Path, texts: int = 80, pictures: int = 40) -> None:
    """All that profiles/own-embeddings.yaml names, in `folder`."""
    colours = np.arange(texts) % len(COLOURS)
    told = [f"a {COLOURS[colour]} thing number {place}" for place, colour in enumerate(colours)]
    keys = [f"{place:09d}" for place in range(texts)]
    table = {"image_path": keys, "caption": told, "key": keys}
    write_retrieval(folder / "texts", {"text": rows("text", colours, 1)}, table, 50)
    few = colours[:pictures]
    table = {name: column[:pictures] for name, column in table.items()}
    write_retrieval(folder / "images", {"img": rows("img", few, 2)}, table, 30)
    write_retrieval(folder / "probe", {"img": rows("img", few, 3), "text": rows("text", few, 4)}, table, 100)
    names = [f"photo-{place}.jpg" for place in range(pictures)]
    for seed, name in enumerate(("instruct", "benchmark"), 5):
        paths = [f"/somewhere/else/{name}/{one}" for one in names]  # as clip-retrieval names files that it was given
        write_retrieval(folder / name, {"img": rows("img", few, seed)}, {"image_path": paths}, 100)
    _write_questions(folder, names, few.tolist())
    write_language_model(folder / "llm", [*told, "what color is it", "is it red", "yes", "no", "describe the picture"])


def _write_questions(folder: Path, names: list[str], colours: list[int]) -> None:
    dialogues = [
        {"id": place, "image": name, "conversations": [
            {"from": "human", "value": "<image>\nwhat color is it"}, {"from": "gpt", "value": COLOURS[colour]},
        ]} for place, (name, colour) in enumerate(zip(names, colours, strict=True))
    ]  # fmt: skip
    (folder / "instruct.json").write_text(json.dumps(dialogues))
    questions = [
        {"question_id": place, "image": name, "text": "is it red", "label": "no" if colour else "yes"}
        for place, (name, colour) in enumerate(zip(names, colours, strict=True))
    ]
    (folder / "benchmark.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))


def write_language_model(folder: Path, words: list[str], template: bool = True) -> None:
    """A tiny Llama of random weights, as `save_pretrained` leaves it."""
    tokenizer = train_tokenizer(words * 3, 330)
    if not template:
        tokenizer.chat_template = None
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=2, num_hidden_layers=2,
        vocab_size=330, pad_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
