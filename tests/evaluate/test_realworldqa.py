"""RealWorldQA on a small copy: letters, words and numbers."""

from pathlib import Path

from .released import figures, picture, read, write_table

LETTER = "Please answer directly with only the letter of the correct option and nothing else."
WORD = "Please answer directly with a single word or number."


def _row(number: int, question: str, answer: str) -> dict[str, object]:
    return {"image_path": f"{number}.webp", "image": picture(number), "question": question, "answer": answer}


def test_letters_words_and_numbers(tmp_path: Path) -> None:
    rows = [
        _row(0, f"Which way?\n\nA. Left\nB. Right\n{LETTER}", "B"),
        _row(1, f"Which way?\n\nA. Left\nB. Right\n{LETTER}", "A"),
        _row(2, f"How many cars?\n{WORD}", "2"),
        _row(3, f"Is the road uphill?\n{WORD}", "No"),
        _row(4, f"How many lanes?\n{WORD}", "3"),
    ]
    write_table(tmp_path / "RealWorldQA/data/test-00000-of-00001.parquet", rows)
    found = read("realworldqa", tmp_path, "RealWorldQA")
    assert found.bad == []
    assert found.items[2].question == f"How many cars?\n{WORD}"
    scores = figures("realworldqa", found.items, ["Right", "B", "Two.", "no", ""])
    # the text of option B, "Two" for 2 and "no" are right; B for A is wrong; nothing said is unparsed
    assert (scores["score"], scores["unparsed"], scores["protocol"]) == (0.6, 1, "realworldqa/1")
    assert scores["majority"] == 0.2


def test_more_words_than_the_answer_are_wrong(tmp_path: Path) -> None:
    write_table(tmp_path / "test.parquet", [_row(0, "How many cars?", "2"), _row(1, "What is it?", "a sign")])
    found = read("realworldqa", tmp_path, "test.parquet")
    assert figures("realworldqa", found.items, ["There are 2 cars", "Sign"])["score"] == 0.5


def test_bad_rows(tmp_path: Path) -> None:
    rows = [_row(0, "How many?", "1"), _row(1, "How many?", " "), _row(2, "How many?", "2") | {"image": None}]
    write_table(tmp_path / "test.parquet", rows)
    found = read("realworldqa", tmp_path, "test.parquet")
    assert (len(found.items), found.bad) == (1, ['"answer" is empty', '"image" holds no picture'])
