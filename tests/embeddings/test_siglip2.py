"""SigLIP 2 as it is published: a SigLIP model of one resolution beside Gemma's tokenizer, texts lower-cased."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    AutoTokenizer,
    GemmaTokenizer,
    Siglip2Config,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from gapbridge.embeddings.encoders import open_pretrained
from gapbridge.errors import InputError
from tests.embeddings.test_transformers_towers import picture

_HALF = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = ["A red Circle", "a blue ring LEFT and a red circle right", "red"]


def _gemma_tokenizer(kind: type[GemmaTokenizer]) -> GemmaTokenizer:
    """Gemma's kind of tokenizer (spaces as ▁, byte fallback), learned from a few texts, with SigLIP 2's settings."""
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    learner = Tokenizer(models.BPE(unk_token=marks[3], byte_fallback=True))
    learner.normalizer = normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    bytes_left = [f"<0x{byte:02X}>" for byte in range(256)]
    texts = [*TEXTS, *(text.lower() for text in TEXTS)] * 3
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=[*marks, *bytes_left]))
    learned = json.loads(learner.to_str())["model"]
    return kind(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        do_lower_case=True,
        model_input_names=["input_ids"],
    )


def _save(folder: Path, tokenizer: GemmaTokenizer) -> Path:
    torch.manual_seed(0)
    text = {**_HALF, "vocab_size": len(tokenizer), "max_position_embeddings": 64, "projection_size": 32}
    config = SiglipConfig(text_config=text, vision_config={**_HALF, "image_size": 32, "patch_size": 16})
    model = SiglipModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("siglip2"), _gemma_tokenizer(GemmaTokenizer))


def test_the_vectors_are_those_of_transformers_on_lower_cased_texts(saved: Path) -> None:
    assert json.loads((saved / "config.json").read_text())["model_type"] == "siglip"
    assert json.loads((saved / "tokenizer_config.json").read_text())["tokenizer_class"] == "GemmaTokenizer"
    model, tokenizer = AutoModel.from_pretrained(saved).eval(), AutoTokenizer.from_pretrained(saved)
    lowered = [text.lower() for text in TEXTS]
    padded = tokenizer(lowered, padding="max_length", max_length=64, truncation=True, return_tensors="pt")
    assert padded.input_ids.shape == (3, 64)
    images = [picture(seed) for seed in range(3)]
    pixels = SiglipImageProcessor.from_pretrained(saved)(images, return_tensors="pt")
    with torch.no_grad():
        texts = model.get_text_features(input_ids=padded.input_ids).pooler_output
        pictures = model.get_image_features(**pixels).pooler_output
    encoder = open_pretrained(f"transformers:{saved}")
    assert (encoder.width, encoder.context_length) == (32, 64)
    for mine, theirs in ((encoder.encode_texts(TEXTS), texts), (encoder.encode_images(images), pictures)):
        np.testing.assert_allclose(mine, torch.nn.functional.normalize(theirs, dim=-1).numpy(), atol=1e-5)


def test_case_changes_nothing(saved: Path) -> None:
    encoder = open_pretrained(f"transformers:{saved}")
    shouted = [text.upper() for text in TEXTS]
    np.testing.assert_array_equal(encoder.encode_texts(shouted), encoder.encode_texts(TEXTS))
    assert list(encoder.token_counts(shouted)) == list(encoder.token_counts(TEXTS))


def test_a_text_of_more_than_64_tokens_is_truncated(saved: Path) -> None:
    encoder = open_pretrained(f"transformers:{saved}")
    fits = " ".join(["red"] * 100)
    while encoder.truncated([fits]):
        fits = fits.rpartition(" ")[0]
    assert encoder.token_counts([fits]) == [64]
    assert encoder.truncated([fits, fits + " red"]) == 1


def test_the_tokenizer_of_its_own_that_transformers_has_gives_the_same_vectors(saved: Path, tmp_path: Path) -> None:
    other = open_pretrained(f"transformers:{_save(tmp_path, _gemma_tokenizer(Siglip2Tokenizer))}")
    np.testing.assert_array_equal(
        other.encode_texts(TEXTS), open_pretrained(f"transformers:{saved}").encode_texts(TEXTS)
    )


def test_naflex_is_refused(tmp_path: Path) -> None:
    Siglip2Config().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"NaFlex\); take a checkpoint of one resolution, such as google/siglip2"):
        open_pretrained(f"transformers:{tmp_path}")
