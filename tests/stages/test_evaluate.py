"""The stage evaluate, whole, on a tiny model of random weights."""

import hashlib
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from gapbridge.corpus import pope
from gapbridge.corpus.manifest import read_manifest, write_manifest
from gapbridge.embeddings.shards import write_shards
from gapbridge.errors import ArtifactError, InputError
from gapbridge.evaluate.benchmarks import BENCHMARKS
from gapbridge.evaluate.predict import Predictor
from gapbridge.evaluate.predictions import read_predictions
from gapbridge.evaluate.protocol import Benchmark, Family, Graded, Item
from gapbridge.stages.runner import run_stage

from ..evaluate.llava import save_llava
from ..evaluate.tiny import QUESTIONS, save_model, unit_vectors
from .asked import COUNT, write_asked
from .direct import run_directly


@pytest.fixture
def ready(workspace: Path) -> Path:
    """A workspace with everything that evaluate reads."""
    write_asked(workspace)
    return workspace


def test_it_writes_figures_and_every_answer(ready: Path) -> None:
    figures = run_stage("evaluate", workspace=ready)
    seeing = read_predictions(ready / "artifacts/evaluate/predictions.jsonl")
    blind = read_predictions(ready / "artifacts/evaluate/predictions_blind.jsonl")
    assert [line["item_id"] for line in seeing] == [line["item_id"] for line in blind] == sorted(_ids())
    assert {line["raw"] for line in blind if line["prompt"] == QUESTIONS[0]} != {""}
    assert len({(line["prompt"], line["raw"]) for line in blind}) == 2
    assert len({(line["prompt"], line["raw"]) for line in seeing}) > 2
    assert set(figures["benchmarks"]) == {"pope", "caption_f1"}
    pope = figures["benchmarks"]["pope"]
    assert (pope["n"], pope["novel"]["n"], pope["subsets"]["random"]["n"]) == (COUNT - 1, 1, COUNT - 1)
    correct = [line["correct"] for line in seeing if line["benchmark"] == "pope" and not line["novel"]]
    assert pope["score"] == pytest.approx(sum(correct) / len(correct))
    captions = [line["f1"] for line in seeing if line["benchmark"] == "caption_f1"]
    assert figures["benchmarks"]["caption_f1"]["score"] == pytest.approx(sum(captions) / len(captions))
    assert figures["average"] == pytest.approx((pope["score"] + sum(captions) / len(captions)) / 2)


def test_two_runs_give_the_same_bytes(ready: Path) -> None:
    def outcome() -> list[bytes]:
        run_stage("evaluate", workspace=ready)
        files = [*sorted((ready / "artifacts/evaluate").iterdir()), ready / "metrics/evaluate.json"]
        return [file.read_bytes() for file in files]

    assert outcome() == outcome()


def test_vectors_of_another_encoder_are_refused(ready: Path) -> None:
    folder = ready / "artifacts/embed/images/images"
    write_shards(folder, [(["a"], unit_vectors(1))], "another", 100)
    with pytest.raises(ArtifactError, match="of encoder f, expected another"):
        run_stage("evaluate", workspace=ready)
    assert not (ready / "artifacts/evaluate").exists()


def test_a_model_of_another_encoder_is_refused(ready: Path) -> None:
    save_model(ready / "artifacts/instruct", "older")
    with pytest.raises(ArtifactError, match=r"instruct: reads vectors of encoder older, .* from f; run"):
        run_stage("evaluate", workspace=ready)
    assert not (ready / "artifacts/evaluate").exists()


def test_a_marker_in_a_question_is_told_by_its_record(ready: Path) -> None:
    folder = ready / "artifacts/ingest/benchmark"
    records = read_manifest(folder).to_dicts()
    records[COUNT + 3]["question"] = "is there <image>"
    write_manifest(folder, "question", records, [])
    with pytest.raises(InputError, match="benchmark: record 'pope-03': its text holds the marker '<image>'"):
        run_directly(ready, "evaluate")


def _interrupted(monkeypatch: pytest.MonkeyPatch, after: int | None) -> list[tuple[Any, ...]]:
    """What the model is asked from now on: prompts with their visual inputs; after so many batches it is stopped."""
    asked: list[tuple[Any, ...]] = []
    count = itertools.count()
    generate = Predictor._generate

    def stopped(self: Predictor, prompts: list[list[int]], visual: dict[str, Any], limit: int) -> list[str]:
        if next(count) == after:
            raise KeyboardInterrupt
        rows = visual["visual_embeds"].numpy()
        asked.extend((tuple(ids), row.tobytes(), limit) for ids, row in zip(prompts, rows, strict=True))
        return generate(self, prompts, visual, limit)

    monkeypatch.setattr(Predictor, "_generate", stopped)
    return asked


@pytest.mark.parametrize("batches", [1, 4])
def test_a_killed_run_goes_on_with_the_same_bytes_and_generates_nothing_twice(
    ready: Path, batches: int, monkeypatch: pytest.MonkeyPatch, set_params: Callable[..., None]
) -> None:
    set_params(evaluate={"batch_size": 3, "max_new_tokens": 6})

    def run(after: int | None) -> tuple[list[tuple[Any, ...]], list[bytes]]:
        with monkeypatch.context() as patched:
            asked = _interrupted(patched, after)
            if after is not None:
                with pytest.raises(KeyboardInterrupt):
                    run_directly(ready, "evaluate")
                assert not (ready / "artifacts/evaluate").exists()
                return asked, []
            run_directly(ready, "evaluate")
        files = [*sorted((ready / "artifacts/evaluate").iterdir()), ready / "metrics/evaluate/evaluate.json"]
        return asked, [file.read_bytes() for file in files]

    whole, expected = run(after=None)
    for folder in ("artifacts/evaluate", "metrics", "scratch"):
        shutil.rmtree(ready / folder)
    first, _ = run(after=batches)
    second, outcome = run(after=None)
    assert outcome == expected
    assert first + second == whole
    assert first and second and len(set(whole)) == len(whole)


class _Exactly:
    """Rules of a made-up benchmark: the first letter, among the item's own choices."""

    id = "exactly/1"
    measure: Literal["accuracy", "f1"] = "accuracy"

    def parse(self, raw: str, item: Item) -> str | None:
        return raw[:1] if raw[:1] in item.detail["choices"] else None

    def score(self, parsed: str | None, item: Item) -> float:
        return float(parsed == item.answer)

    def majority(self, items: Sequence[Item]) -> float:
        return 1 / len(items)

    def extras(self, graded: Sequence[Graded]) -> dict[str, Any]:
        return {"choices": len(graded[0].item.detail["choices"])}


def _published(name: str, family: Family) -> Benchmark:
    facts = {"title": name.upper(), "layout": "-", "source": "-", "protocols": ("exactly/1",), "max_new_tokens": 2}
    return Benchmark(name=name, family=family, read=pope.read, rules=lambda items: _Exactly(), **facts)


def test_published_benchmarks_have_their_own_rules_lengths_and_family(
    ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(BENCHMARKS):  # a family has averages when all of it is there
        monkeypatch.delitem(BENCHMARKS, name)
    for name, family in (("one", "general"), ("two", "general"), ("three", "reasoning")):
        monkeypatch.setitem(BENCHMARKS, name, _published(name, family))
    folder = ready / "artifacts/ingest/benchmark"
    records = read_manifest(folder).to_dicts()
    letters = '{"choices": ["' + '", "'.join("abcdefghijklmnopqrst") + '"]}'
    for record in records:
        if record["benchmark"] == "caption_f1":
            record |= {"benchmark": "one" if int(record["id"][-2:]) % 2 else "two", "detail": letters, "answer": "r"}
    write_manifest(folder, "question", records, [])
    with monkeypatch.context() as patched:
        asked = _interrupted(patched, None)
        figures = run_directly(ready, "evaluate")
    assert {limit for *_, limit in asked} == {2, 48}
    one, two = figures["benchmarks"]["one"], figures["benchmarks"]["two"]
    assert (one["protocol"], one["family"], one["choices"], one["n"]) == ("exactly/1", "general", 20, COUNT // 2)
    assert "family" not in figures["benchmarks"]["pope"]
    assert figures["families"] == {
        "general": {"score": (one["score"] + two["score"]) / 2, "blind": (one["blind"] + two["blind"]) / 2}
    }
    assert "published" not in figures
    monkeypatch.delitem(BENCHMARKS, "three")
    whole = run_directly(ready, "evaluate")
    assert whole["published"] == whole["families"]["general"]


@pytest.fixture
def pictured(ready: Path) -> Path:
    """The pictures' files, and a tiny LLaVA beside them; nothing of what our own model needs."""
    folder = ready / "artifacts/ingest/benchmark"
    for n in range(COUNT):
        noise = np.random.default_rng(n).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(ready / f"{n}.png")
    records = [
        {**record, "sha256": hashlib.sha256((ready / record["image"].removeprefix("root:")).read_bytes()).hexdigest()}
        for record in read_manifest(folder).to_dicts()
    ]
    write_manifest(folder, "question", records, [])
    save_llava(ready / "models/tiny-llava")
    for name in ("embed", "instruct"):
        shutil.rmtree(ready / "artifacts" / name)
    return ready


def test_another_model_is_scored_as_a_reference(pictured: Path, set_params: Callable[..., None]) -> None:
    set_params(evaluate={"model": "models/tiny-llava", "max_new_tokens": 6})
    figures = run_directly(pictured, "evaluate")
    seeing = read_predictions(pictured / "artifacts/evaluate/predictions.jsonl")
    blind = read_predictions(pictured / "artifacts/evaluate/predictions_blind.jsonl")
    assert len({(line["prompt"], line["raw"]) for line in blind}) == 2
    assert len({(line["prompt"], line["raw"]) for line in seeing}) > 2
    assert set(figures["benchmarks"]) == {"pope", "caption_f1"}
    assert figures["model"]["name"] == "tiny-llava"
    assert str(pictured) not in (pictured / "metrics/evaluate/evaluate.json").read_text()


def test_a_reference_sees_only_the_pictures_that_were_taken_in(pictured: Path, set_params: Callable[..., None]) -> None:
    set_params(evaluate={"model": "models/tiny-llava", "max_new_tokens": 6})
    Image.new("RGB", (20, 30)).save(pictured / "3.png")
    with pytest.raises(ArtifactError, match=r"root:3\.png: changed since ingest; run `gapbridge ingest` again"):
        run_directly(pictured, "evaluate")


def _ids() -> list[str]:
    return [f"{benchmark}-{n:02d}" for benchmark in ("pope", "caption_f1") for n in range(COUNT)]
