"""The saved directory: opened by the Auto classes and the pipeline in a process that imported gapbridge once."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
    pipeline,
)

from gapbridge.model.assemble import AdapterShape, ImageCap, ImageTower, assemble, make_processor, placeholder, save
from gapbridge.train.prompts import Prompter
from gapbridge.train.tokens import IMAGE_TOKEN

from .conftest import CONFIGS, TOKENS, WIDTH, image_tower, language_model, pictures

_CHAT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what color is the circle"}]}]

_OPEN = """
import sys, time
started = time.perf_counter()
{imports}
took = time.perf_counter() - started
light = not ({{"torch", "transformers"}} & set(sys.modules)) or {late}
from transformers import AutoModelForImageTextToText, AutoProcessor
import json
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1])
processor = AutoProcessor.from_pretrained(sys.argv[1])
print(json.dumps([type(model).__name__, type(processor).__name__, light, took]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AutoConfig", "AutoImageProcessor"])
def test_each_auto_class_alone_opens_it(saved: Path, name: str) -> None:
    code = f"import gapbridge, sys\nfrom transformers import {name}\n{name}.from_pretrained(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(saved)], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["processor", "config"])
def test_any_part_may_be_imported_first(part: str) -> None:
    code = f"import gapbridge.model.{part}, transformers\nfrom transformers import AutoProcessor, AutoImageProcessor"
    known = "from transformers.models.auto.processing_auto import PROCESSOR_MAPPING as m"
    check = "from gapbridge.model.config import GapbridgeConfig as c\nassert m[c].__name__ == 'GapbridgeProcessor'"
    subprocess.run([sys.executable, "-c", f"{code}\n{known}\n{check}"], check=True, timeout=120)


@pytest.mark.parametrize("late", [False, True], ids=["gapbridge first", "transformers first"])
def test_one_import_is_enough_and_light(saved: Path, late: bool) -> None:
    imports = "import transformers.models.auto.modeling_auto\nimport gapbridge" if late else "import gapbridge"
    code = _OPEN.format(imports=imports, late=late)
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)], check=True, capture_output=True, text=True, timeout=120
    )
    model, processor, light, _ = json.loads(done.stdout.splitlines()[-1])
    assert (model, processor, light) == ("GapbridgeForConditionalGeneration", "GapbridgeProcessor", True)


def test_weights_survive(build: Any, saved: Path) -> None:
    before, after = build().state_dict(), AutoModelForImageTextToText.from_pretrained(saved).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_it_is_written_the_same_twice_and_holds_no_code(
    build: Any, tokenizer: Any, saved: Path, tmp_path: Path
) -> None:
    save(build(), make_processor(tokenizer, image_tower(), TOKENS, IMAGE_TOKEN), Prompter(tokenizer).end_id, tmp_path)
    names = sorted(file.name for file in saved.iterdir())
    assert {Path(name).suffix for name in names} <= {".json", ".safetensors", ".jinja"}
    assert [(tmp_path / name).read_bytes() for name in names] == [(saved / name).read_bytes() for name in names]
    assert "auto_map" not in (saved / "config.json").read_text()
    assert {file.stat().st_mode & 0o777 for file in saved.iterdir()} == {0o644}


def test_tied_weights_are_written_once(build: Any, tokenizer: Any, tmp_path: Path) -> None:
    model = build("qwen2")
    save(model, make_processor(tokenizer, image_tower(), TOKENS, IMAGE_TOKEN), 1, tmp_path)
    opened = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert opened.lm_head.weight is opened.get_input_embeddings().weight
    ids = torch.tensor([[4, 8, 15]])
    torch.testing.assert_close(opened(input_ids=ids).logits, model(input_ids=ids).logits)


def test_the_processor_writes_the_ids_that_training_saw(saved: Path, tokenizer: Any) -> None:
    processor = AutoProcessor.from_pretrained(saved)
    chat = [{"role": "user", "content": [{"type": "image", "image": pictures(1)[0]}, *_CHAT[0]["content"][1:]]}]
    inputs = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    expected = Prompter(tokenizer).ask("what color is the circle", visual_tokens=TOKENS)
    assert inputs["input_ids"][0].tolist() == expected
    assert inputs["pixel_values"].shape == (1, 3, 32, 32)


def test_the_pixels_are_open_clips_own(saved: Path) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    processor = AutoProcessor.from_pretrained(saved)
    transform = image_transform_v2(PreprocessCfg(**image_tower().preprocess_cfg), is_train=False)
    expected = torch.stack([transform(picture) for picture in pictures()])
    found = processor.image_processor(pictures(), return_tensors="pt")["pixel_values"]
    assert torch.equal(found, expected)


def test_a_turned_picture_is_turned_back(saved: Path) -> None:
    processor = AutoProcessor.from_pretrained(saved)
    upright = pictures(1)[0]
    turned = upright.rotate(90, expand=True)
    turned.getexif()[0x0112] = 6
    pixels = processor.image_processor([upright, turned], return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels[0], pixels[1])


def test_the_pipeline_answers(saved: Path, tmp_path: Path) -> None:
    ask = pipeline("image-text-to-text", model=str(saved))
    file = tmp_path / "p.png"
    pictures(1)[0].save(file)
    chat = [{"role": "user", "content": [{"type": "image", "path": str(file)}, *_CHAT[0]["content"][1:]]}]
    answer = ask(chat, max_new_tokens=5, return_full_text=False)[0]["generated_text"]
    plain = ask(images=Image.open(file), text="<image> yes", max_new_tokens=5)[0]["generated_text"]
    assert isinstance(answer, str)
    assert isinstance(plain, str)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_tower_of_transformers_is_saved_and_opened(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    """As an encoder pinned by `transformers:` leaves it: the saved model gives the same vectors and answers."""
    half = {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings = {**half, "image_size": 32, "patch_size": 16, "projection_dim": WIDTH}
    size = {"height": 32, "width": 32}
    if kind == "clip":
        visual = CLIPVisionModelWithProjection(CLIPVisionConfig(**settings))
        processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    else:
        visual = SiglipVisionModel(SiglipVisionConfig(**settings))
        processor = SiglipImageProcessor(size=size)
    config = json.loads(visual.config.to_json_string(use_diff=False))
    architecture = {"transformers": kind, "embed_dim": WIDTH, "image_size": 32, "vision_cfg": config}
    preprocess = {"size": 32, "transformers": json.loads(processor.to_json_string())}
    tower = ImageTower(visual.eval(), architecture, preprocess)
    cap = ImageCap(np.zeros(WIDTH), np.full(WIDTH, 0.2))
    model = assemble(
        language_model("llama"), placeholder(tokenizer, IMAGE_TOKEN), tower, AdapterShape(24, TOKENS, "heads"), cap, 5
    )
    save(model, make_processor(tokenizer, tower, TOKENS, IMAGE_TOKEN), Prompter(tokenizer).end_id, tmp_path)
    opened, reader = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    inputs = reader(text=["<image>describe the picture"], images=pictures(1), return_tensors="pt")
    with torch.no_grad():
        expected = visual(processor(images=pictures(1), return_tensors="pt")["pixel_values"])
        expected = expected.image_embeds if kind == "clip" else expected.pooler_output
        found = opened.model.vision_tower(inputs["pixel_values"]).pooler_output
        torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=-1))
        told = model.generate(**inputs, max_new_tokens=5)
        assert torch.equal(opened.generate(**inputs, max_new_tokens=5), told)


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_every_family_is_saved_opened_and_answers_alike(
    family: str, build: Any, tokenizer: Any, tmp_path: Path
) -> None:
    """Also a batch padded on the left answers as each of its rows alone, tied embeddings and sliding windows or not."""
    model = build(family)
    save(model, make_processor(tokenizer, image_tower(), TOKENS, IMAGE_TOKEN), Prompter(tokenizer).end_id, tmp_path)
    opened, reader = AutoModelForImageTextToText.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    before, after = model.state_dict(), opened.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    texts = ["<image>describe the picture", "<image>is there a blue ring left and what color is the circle"]
    both = reader(text=texts, images=pictures(2), padding=True, return_tensors="pt")
    answers = opened.generate(**both, max_new_tokens=6)[:, both["input_ids"].shape[1] :]
    for row in (0, 1):
        one = reader(text=texts[row : row + 1], images=pictures(2)[row : row + 1], return_tensors="pt")
        alone = opened.generate(**one, max_new_tokens=6)[0, one["input_ids"].shape[1] :]
        assert torch.equal(answers[row][: len(alone)], alone)
