"""Raw generations to answers: what case, punctuation, articles and the words around an answer must not decide."""

import re
import unicodedata
from collections.abc import Iterable

_WORD = re.compile(r"\w+")
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    name: str(value)
    for value, name in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_NEGATIONS = frozenset({"no", "not"})

Words = tuple[str, ...]


def words(text: str) -> Words:
    """`text` as lower-case words without punctuation and articles; zero to ten become digits."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    found = (_NUMBERS.get(word, word) for word in _WORD.findall(plain))
    return tuple(word for word in found if word not in _ARTICLES)


def choices(answers: Iterable[str]) -> frozenset[Words]:
    """The distinct normalised answers of a benchmark; answers that hold no word at all are left out."""
    return frozenset(choice for answer in answers if (choice := words(answer)))


def find_choice(raw: str, known: frozenset[Words]) -> str | None:
    """The one known answer that `raw` names, as normalised words; None when it names none, or several.

    A generation that is a known answer as a whole is that answer. A shorter answer inside a longer one
    ("ring" in "ring road") does not count as named.
    """
    said = words(raw)
    if said in known:
        return " ".join(said)
    named = _longest(_spans(said, known))
    return " ".join(named.pop()) if len(named) == 1 else None


def yes_or_no(raw: str) -> str | None:
    """`yes` or `no`, whichever the first sentence says first (`not` counts as no); None when it says neither."""
    for word in words(re.split(r"[.!?\n]", raw.strip(), maxsplit=1)[0]):
        if word == "yes" or word in _NEGATIONS:
            return "yes" if word == "yes" else "no"
    return None


def _spans(said: Words, known: frozenset[Words]) -> list[tuple[int, int, Words]]:
    """Where known answers stand in `said`: start, end, answer."""
    longest = max(map(len, known), default=0)
    return [
        (start, end, said[start:end])
        for start in range(len(said))
        for end in range(start + 1, min(start + longest, len(said)) + 1)
        if said[start:end] in known
    ]


def _longest(spans: list[tuple[int, int, Words]]) -> set[Words]:
    """The answers of the spans that lie inside no other span."""
    return {
        answer
        for start, end, answer in spans
        if not any(s <= start and end <= e and e - s > end - start for s, e, _ in spans)
    }
