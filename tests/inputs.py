"""Small inputs for whatever params name: files in the real format of each source, checkpoints in that of each model."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from gapbridge.corpus.records import SETS
from gapbridge.evaluate.mmmu import PICTURES
from gapbridge.params import Params, Source

from .checkpoints import save_encoder, save_llm
from .evaluate.released import write_lines, write_table

ROWS = 48
COLORS = ("red", "blue", "green", "teal", "pink", "grey")
SHAPES = ("ring", "dot", "cross", "bar")
_PART = "00000-of-00001.parquet"


def write_inputs(workspace: Path, params: Params) -> None:
    """Every source and every pinned model that `params` name, where they name it."""
    root = workspace / params.sources.root
    for set_name in SETS:
        for place, source in enumerate(params.sources.of(set_name)):
            if source.path is not None:
                write_source(root, set_name, source, place)
    if params.encoder.pretrained is not None:
        save_encoder(workspace, params.encoder.pretrained, texts())
    if params.llm.pretrained is not None:
        save_llm(workspace / params.llm.pretrained, texts())


def texts() -> list[str]:
    """Captions, each another one."""
    return [f"a {color} {shape} number {n}" for n, (color, shape) in enumerate(_things(ROWS))]


def _things(count: int) -> Iterator[tuple[str, str]]:
    for number in range(count):
        yield COLORS[number % len(COLORS)], SHAPES[number // len(COLORS) % len(SHAPES)]


def picture(set_name: str, number: int) -> Image.Image:
    """One of a set's pictures; no other set, and no other number, has it or one that looks like it."""
    random = np.random.default_rng([sum(set_name.encode()), number])
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return small.resize((48, 40), Image.Resampling.NEAREST)


def write_source(root: Path, set_name: str, source: Source, place: int) -> None:
    """The file or folder that a source of a set names, and its pictures."""
    path, kind = root / str(source.path), source.format or _UNSAID[set_name]
    path.parent.mkdir(parents=True, exist_ok=True)
    images = root / source.images if source.images else path
    if kind in _BENCHMARKS:
        _BENCHMARKS[kind](path, images, f"{set_name}{place}")
    else:
        _CORPORA[kind](path, images, set_name)


_UNSAID = {"texts": "jsonl", "images": "folder", "instruct": "llava", "probe": "llava", "benchmark": "pope"}
"""What a file without a `format` is here, for `ingest` to find out."""


def _pictures(folder: Path, set_name: str, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(set_name, number).save(folder / name)


def _jsonl(path: Path, images: Path, set_name: str) -> None:
    del images, set_name
    write_lines(path, [{"image_id": f"t{n}", "caption": text} for n, text in enumerate(texts())])


def _folder(path: Path, images: Path, set_name: str) -> None:
    del images
    _pictures(path, set_name, [f"{n // 10}/{n:03d}.{'png' if n % 2 else 'jpg'}" for n in range(ROWS)])


def _webdataset(path: Path, images: Path, set_name: str) -> None:
    """As img2dataset names members, two archives."""
    del images
    path.mkdir(parents=True)
    for shard in range(2):
        with tarfile.open(path / f"{shard:05d}.tar", "w") as archive:
            for number in range(shard, ROWS, 2):
                content = io.BytesIO()
                picture(set_name, number).save(content, "JPEG")
                about = json.dumps({"key": f"{number:09d}", "status": "success"}).encode()
                for suffix, data in (("jpg", content.getvalue()), ("json", about)):
                    member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def _dialogues(set_name: str, folder: str = "") -> list[dict[str, object]]:
    rows = []
    for number, (text, (color, shape)) in enumerate(zip(texts(), _things(ROWS), strict=True)):
        asked = [("Describe the picture.", text)]
        if set_name == "instruct":
            asked += [("What color is it?", color), ("What shape is it?", shape)]
        spoken = [
            turn
            for place, (question, answer) in enumerate(asked)
            for turn in (
                {"from": "human", "value": question if place else f"<image>\n{question}"},
                {"from": "gpt", "value": answer},
            )
        ]
        rows.append({"id": f"{set_name}{number}", "image": f"{folder}{number:03d}.jpg", "conversations": spoken})
    return rows


def _llava(path: Path, images: Path, set_name: str) -> None:
    path.write_text(json.dumps(_dialogues(set_name)))
    if set_name != "texts":
        _pictures(images, set_name, [f"{n:03d}.jpg" for n in range(ROWS)])


def _internvl(path: Path, images: Path, set_name: str) -> None:
    """Two sets, one of which is taken one and a half times; one row has no picture, as some have there."""
    del images
    rows = _dialogues(set_name)
    spoken = [{"from": "human", "value": "What is two and two?"}, {"from": "gpt", "value": "four"}]
    write_lines(path.parent / "sft/a.jsonl", [*rows[::2], {"id": "words", "conversations": spoken}])
    write_lines(path.parent / "sft/b.jsonl", rows[1::2])
    _pictures(path.parent / "sft/images", set_name, [f"{n:03d}.jpg" for n in range(ROWS)])
    entry = {"root": "sft/images", "data_augment": False, "length": ROWS // 2}
    sets = {
        "a": {**entry, "annotation": "sft/a.jsonl", "repeat_time": 1},
        "b": {**entry, "annotation": "sft/b.jsonl", "repeat_time": 1.5},
    }
    path.write_text(json.dumps(sets))


def _pope(path: Path, images: Path, set_name: str) -> None:
    rows = [
        {"question_id": n, "image": f"{n:03d}.png", "text": f"Is there a {shape}?", "label": "no" if n % 2 else "yes"}
        for n, (_, shape) in enumerate(_things(ROWS))
    ]
    write_lines(path, rows)
    _pictures(images, set_name, [f"{n:03d}.png" for n in range(ROWS)])


_CORPORA: dict[str, Callable[[Path, Path, str], None]] = {
    "jsonl": _jsonl,
    "folder": _folder,
    "webdataset": _webdataset,
    "llava": _llava,
    "internvl": _internvl,
    "pope": _pope,
}


def _mme(path: Path, images: Path, label: str) -> None:
    del images
    rows = [
        {
            "question_id": f"{subtask}/{number}.png", "image": picture(label, 10 * place + number),
            "question": f"Is this {word}? Please answer yes or no.", "answer": answer, "category": subtask,
        }
        for place, subtask in enumerate(("existence", "count"))
        for number in range(2)
        for word, answer in (("so", "Yes"), ("not so", "No"))
    ]  # fmt: skip
    write_table(path / f"data/test-{_PART}", rows)


def _mmstar(path: Path, images: Path, label: str) -> None:
    del images
    asked = "Which colour is it?\nOptions: A: red, B: blue, C: green, D: grey"
    rows = [
        {"index": n, "question": asked, "image": picture(label, n), "answer": "ABCD"[n % 4], "category": "math"}
        for n in range(8)
    ]
    write_table(path / f"data/val-{_PART}", rows)


def _scienceqa(path: Path, images: Path, label: str) -> None:
    del images
    row = {"question": "Which one?", "choices": ["iron", "wood"], "hint": "", "subject": "natural science"}
    rows = [{**row, "image": picture(label, n), "answer": n % 2} for n in range(8)]
    write_table(path / f"ScienceQA-IMG/test-{_PART}", rows)


def _realworldqa(path: Path, images: Path, label: str) -> None:
    del images
    asked = "How many cars?\nPlease answer directly with a single word or number."
    rows = [{"image": picture(label, n), "question": asked, "answer": str(n % 3)} for n in range(6)]
    write_table(path / f"data/test-{_PART}", rows)


def _mmmu(path: Path, images: Path, label: str) -> None:
    del images
    rows = [
        {
            "id": f"validation_Art_{n}", "question": "What is in <image 1>?", "options": "['a vase', 'a jug']",
            "answer": "AB"[n % 2], "question_type": "multiple-choice",
            **dict.fromkeys(PICTURES), "image_1": picture(label, n),
        }
        for n in range(6)
    ]  # fmt: skip
    write_table(path / f"data/validation-{_PART}", rows, PICTURES)


def _mmmu_pro(path: Path, images: Path, label: str) -> None:
    del images
    options = str([f"option {n}" for n in range(10)])
    about = [{"id": f"test_Art_{n}", "options": options, "answer": "ABJ"[n], "subject": "Art"} for n in range(3)]
    none = dict.fromkeys(PICTURES)
    standard = [
        {**row, "question": "Which is <image 1>?", **none, "image_1": picture(label, n)} for n, row in enumerate(about)
    ]
    write_table(path / f"standard (10 options)/test-{_PART}", standard, PICTURES)
    write_table(path / f"vision/test-{_PART}", [{**row, "image": picture(label, 9 + n)} for n, row in enumerate(about)])


def _visulogic(path: Path, images: Path, label: str) -> None:
    del images
    names = [f"images/{n:05d}.png" for n in range(4)]
    rows = [
        {"id": f"{n:05d}", "image_path": name, "question": "Which comes next?", "label": "ABCD"[n], "tag": "Other"}
        for n, name in enumerate(names)
    ]
    write_lines(path / "data.jsonl", rows)
    _pictures(path, label, names)


def _logicvista(path: Path, images: Path, label: str) -> None:
    del images
    entries = {
        f"v1_{n}": {
            "imagename": f"v1_{n}.png", "question": "Which (A-D)?", "answer": "ABCD"[n], "reasoning": "",
            "skill": ["spatial"],
        }
        for n in range(4)
    }  # fmt: skip
    _pictures(path / "images", label, [f"v1_{n}.png" for n in range(4)])
    (path / "dataset.json").write_text(json.dumps(entries))


def _crpe(path: Path, images: Path, label: str) -> None:
    del images
    names = ["cat", "dog", "cup", "hat"]
    for file, category in (("crpe_exist.jsonl", "exist"), ("crpe_relation.jsonl", "subject")):
        rows = []
        for turn in range(4):
            options = "\n".join(f"{sign}. {names[(place + turn) % 4]}" for place, sign in enumerate("ABCD"))
            text = f"What is it?\n{options}\nAnswer with the option's letter from the given choices directly."
            row = {"question_id": turn, "image": f"coco/val2017/{category}.jpg", "text": text}
            rows.append({**row, "category": category, "correct_option": "ADCB"[turn]})
        write_lines(path / file, rows)
    _pictures(path / "coco/val2017", label, ["exist.jpg", "subject.jpg"])


def _pope_official(path: Path, images: Path, label: str) -> None:
    names = [f"COCO_val2014_{n:012d}.jpg" for n in range(3)]
    for subset in ("random", "popular", "adversarial"):
        rows = [
            {"question_id": n, "image": name, "text": "Is there a cup in the image?", "label": "no" if n % 2 else "yes"}
            for n, name in enumerate(names, 1)
        ]
        write_lines(path / f"coco_pope_{subset}.json", rows)
    _pictures(images, label, names)


def _hallusionbench(path: Path, images: Path, label: str) -> None:
    del images
    about = {"category": "VD", "subcategory": "chart", "visual_input": "1", "set_id": "0"}
    rows = [
        {
            **about, "figure_id": str(figure), "question_id": str(question), "question": f"Is it so, {question}?",
            "gt_answer": str((figure + question) % 2), "image": picture(label, figure),
        }
        for figure in range(2)
        for question in range(2)
    ]  # fmt: skip
    write_table(path / f"data/image-{_PART}", rows)


_BENCHMARKS: dict[str, Callable[[Path, Path, str], None]] = {
    "mme": _mme,
    "mmstar": _mmstar,
    "scienceqa": _scienceqa,
    "realworldqa": _realworldqa,
    "mmmu": _mmmu,
    "mmmu_pro": _mmmu_pro,
    "visulogic": _visulogic,
    "logicvista": _logicvista,
    "crpe": _crpe,
    "pope_official": _pope_official,
    "hallusionbench": _hallusionbench,
}
