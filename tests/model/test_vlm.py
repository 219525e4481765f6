"""The model on tensors: pictures or vectors, labels or logits, one sample or a padded batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageTextToText, AutoProcessor

from gapbridge.model import loss
from gapbridge.model.vlm import GapbridgeForConditionalGeneration
from gapbridge.train.prompts import Prompter

from .conftest import CONFIGS, HIDDEN, TOKENS, WIDTH, image_tower, language_model, pictures

Build = Callable[..., GapbridgeForConditionalGeneration]


@pytest.fixture
def vectors() -> torch.Tensor:
    """Four unit vectors (4, d)."""
    generator = torch.Generator().manual_seed(2)
    return torch.nn.functional.normalize(torch.randn(4, WIDTH, generator=generator), dim=-1)


def _prompts(tokenizer: Any) -> list[list[int]]:
    prompter = Prompter(tokenizer)
    questions = ["describe the picture", "what color is the circle", "is there a blue ring", "yes"]
    return [prompter.ask(question, visual_tokens=TOKENS) for question in questions]


def _padded(tokenizer: Any, prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    return dict(tokenizer.pad({"input_ids": prompts}, return_tensors="pt"))


def test_a_padded_batch_answers_like_single_samples(build: Build, tokenizer: Any, vectors: torch.Tensor) -> None:
    model, prompts = build(), _prompts(tokenizer)
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    batch = _padded(tokenizer, prompts)
    together = model.generate(**batch, visual_embeds=vectors, **settings)[:, batch["input_ids"].shape[1] :]
    alone = [
        model.generate(input_ids=torch.tensor([ids]), visual_embeds=vectors[i : i + 1], **settings)[0, len(ids) :]
        for i, ids in enumerate(prompts)
    ]
    assert torch.equal(together, torch.stack(alone))
    assert len({tuple(answer.tolist()) for answer in alone}) > 1


def test_pictures_and_their_vectors_give_the_same_answers(build: Build, saved: Any) -> None:
    model = AutoModelForImageTextToText.from_pretrained(saved)
    processor = AutoProcessor.from_pretrained(saved)
    text = ["<image> yes"] * 4
    inputs = processor(text=text, images=pictures(), return_tensors="pt")
    tower = image_tower().visual
    with torch.no_grad():
        units = torch.nn.functional.normalize(tower(inputs["pixel_values"]), dim=-1)
        pixels = model(**inputs).logits
        vectors = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], visual_embeds=units
        ).logits
    torch.testing.assert_close(pixels, vectors)
    assert (pixels[0] - pixels[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", sorted(CONFIGS))
def test_other_families_keep_their_logits(build: Build, family: str) -> None:
    ids = torch.tensor([[5, 9, 2, 60, 7]])
    with torch.no_grad():
        torch.testing.assert_close(build(family)(input_ids=ids).logits, language_model(family)(input_ids=ids).logits)


def test_the_loss_is_that_of_the_labelled_places(
    build: Build, tokenizer: Any, vectors: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = build(), _padded(tokenizer, _prompts(tokenizer))
    labels = torch.where(torch.rand(batch["input_ids"].shape) < 0.5, batch["input_ids"], loss.IGNORED)
    labels[labels == model.config.image_token_id] = loss.IGNORED
    logits = model(**batch, visual_embeds=vectors).logits
    flat = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    assert model(**batch, visual_embeds=vectors, labels=labels).loss.item() == pytest.approx(
        cross_entropy(*flat).item(), rel=1e-5
    )
    output = model.multi_modal_projector = model.model.multi_modal_projector
    gradients = []
    for chunk in (1 << 25, 340 * 3):
        monkeypatch.setattr(loss, "_CHUNK_LOGITS", chunk)
        total = model(**batch, visual_embeds=vectors, labels=labels, num_items_in_batch=1).loss
        assert total.item() == pytest.approx(cross_entropy(*flat, reduction="sum").item(), rel=1e-5)
        gradients.append(torch.autograd.grad(total, output.hidden.weight)[0])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_one_head_a_token_or_the_same_token(build: Build, vectors: torch.Tensor) -> None:
    heads = build("lfm2", "heads").model.get_image_features(visual_embeds=vectors).pooler_output
    repeat = build("lfm2", "repeat").model.get_image_features(visual_embeds=vectors).pooler_output
    assert heads.shape == repeat.shape == (4, TOKENS, HIDDEN)
    assert (heads[:, 0] - heads[:, 1]).abs().max() > 1e-3
    assert torch.equal(repeat[:, 0], repeat[:, 1])


def test_vectors_enter_relative_to_the_images_mean(build: Build) -> None:
    adapter = build().model.multi_modal_projector
    at_mean = adapter(adapter.image_mean[None])
    expected = adapter.output(adapter.act(adapter.hidden.bias)) * adapter.token_scale
    torch.testing.assert_close(at_mean.flatten(), expected)
    assert adapter.token_scale.item() == pytest.approx(0.3, rel=0.05)
    assert adapter.image_scale.item() == pytest.approx(0.2)


@pytest.mark.parametrize("count", [1, 5])
def test_a_wrong_number_of_placeholders_is_an_error(
    build: Build, tokenizer: Any, vectors: torch.Tensor, count: int
) -> None:
    batch = _padded(tokenizer, _prompts(tokenizer))
    wrong = vectors.repeat(2, 1)[:count]
    with pytest.raises(ValueError, match=f"12 placeholders for {count} pictures"):
        build()(**batch, visual_embeds=wrong)


def test_the_tower_never_trains(build: Build) -> None:
    model = build().train()
    before = {name: tensor.clone() for name, tensor in model.model.vision_tower.state_dict().items()}
    model.model.vision_tower(torch.randn(4, 3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.model.vision_tower.state_dict().items())
