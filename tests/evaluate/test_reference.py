"""Other image-text-to-text models, on a tiny LLaVA and a tiny Qwen2.5-VL made here."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from gapbridge.errors import InputError
from gapbridge.evaluate.generation import Request
from gapbridge.evaluate.reference import Reference, grey

from .llava import save_llava
from .qwen_vl import save_qwen_vl
from .tiny import QUESTIONS

PICTURES = [
    Image.fromarray(np.random.default_rng(n).integers(0, 256, (30 + 30 * n, 40, 3), dtype=np.uint8)) for n in range(3)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "tiny-llava"
    save_llava(made)
    return made


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference.load(folder.name, None, batch_size=5, root=folder.parent)


def _requests() -> list[Request]:
    return [Request(f"{question} {n}", question, n, 6) for question in QUESTIONS for n in range(len(PICTURES))]


def test_batches_answer_as_the_model_itself_does(reference: Reference, folder: Path) -> None:
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    expected = []
    for request in _requests():
        text = f"{processor.tokenizer.bos_token}<user><image>\n{request.question}<assistant>"
        picture = PICTURES[request.picture]
        inputs = processor(text=text, images=picture, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            told = model.generate(**inputs, do_sample=False, max_new_tokens=6)
        expected.append(processor.decode(told[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    assert reference.answers(_requests(), PICTURES.__getitem__, None) == expected
    assert len(set(expected)) > len(QUESTIONS)  # the pictures matter, or the comparison says nothing


def test_the_blind_floor_is_one_grey_picture(reference: Reference) -> None:
    assert grey(0) == grey(7)
    assert grey(0).getcolors() == [(336 * 336, (128, 128, 128))]
    blind = reference.answers(_requests(), grey, None)
    assert all(len(set(blind[at : at + 3])) == 1 for at in range(0, len(blind), 3))
    assert blind != reference.answers(_requests(), PICTURES.__getitem__, None)


def test_pictures_of_any_size_are_asked_about_together_and_without_chance(tmp_path: Path) -> None:
    save_qwen_vl(tmp_path / "qwen")
    together = Reference.load("qwen", None, batch_size=7, root=tmp_path)
    told = together.answers(_requests(), PICTURES.__getitem__, None)
    assert together.answers(_requests(), PICTURES.__getitem__, None) == told
    assert Reference.load("qwen", None, 1, tmp_path).answers(_requests(), PICTURES.__getitem__, None) == told
    assert len(set(told)) > len(QUESTIONS)


def test_a_marker_in_a_question_is_text(reference: Reference) -> None:
    (answer,) = reference.answers([Request("q", "is there <image> or <assistant>", 0, 6)], grey, None)
    assert answer != reference.answers([Request("q", "is there", 0, 6)], grey, None)[0]


def test_it_says_which_model_it_is(reference: Reference, folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "generation_config.json").write_text("{}")
    assert reference.identity["name"] == "tiny-llava"
    assert reference.identity["architecture"] == "LlavaForConditionalGeneration"
    assert Reference.load(str(other), None, 1).identity["digest"] != reference.identity["digest"]


def _without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def _damaged(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def _of_own_code(folder: Path) -> None:
    config = {"model_type": "odd", "auto_map": {"AutoModelForImageTextToText": "modelling.Odd"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modelling.py").write_text("raise SystemExit('ran')")


def _without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def _with_a_hole(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(name for name in sorted(weights) if "multi_modal_projector" in name))
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _language_alone(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())["text_config"]
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_weights, "does not open as an image-text-to-text model .*; it needs config.json, safetensors"),
        (_pickled, "does not open as an image-text-to-text model"),
        (_damaged, "does not open as an image-text-to-text model"),
        (_language_alone, "does not open as an image-text-to-text model"),
        (_with_a_hole, r"1 of its weights are missing \(.*multi_modal_projector.*\); copy it again"),
        (_of_own_code, "needs code of its own, which is not run; name one that transformers knows"),
        (_without_template, "has no chat template; name the instruct version of the model"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    change: Callable[[Path], None], message: str, folder: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    change(broken)
    with pytest.raises(InputError, match=rf"evaluate\.model .*broken: (its processor )?{message}") as caught:
        Reference.load(str(broken), None, 1)
    assert "\n" not in str(caught.value)


def test_a_model_of_the_hub_needs_a_commit_and_must_be_there() -> None:
    with pytest.raises(InputError, match=r"no such folder; for a hub id set evaluate\.revision to a commit"):
        Reference.load("owner/none", None, 1)
    with pytest.raises(InputError, match=r"owner/none at abc: cannot be had .*name a folder that it was downloaded to"):
        Reference.load("owner/none", "abc", 1)
