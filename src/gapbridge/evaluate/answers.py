"""Raw generations to answers: what case, punctuation, articles and the words around an answer must not decide."""

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from string import ascii_uppercase

_WORD = re.compile(r"\w+")
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    name: str(value)
    for value, name in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
}
_NEGATIONS = frozenset({"no", "not"})

# A letter of an option: no Latin letter, digit or apostrophe beside it (there are no spaces in Chinese).
_BEFORE, _BEHIND = r"(?<![A-Za-z0-9À-ɏ'’])", r"(?![A-Za-z0-9À-ɏ'’])"
_LETTER = re.compile(rf"{_BEFORE}([A-Z]){_BEHIND}")
_WHOLE = re.compile(r"[\W_]*([A-Za-z])[\W_]*")
_LISTED = re.compile(rf"(?:^\W*|\n\W*|\()([A-Za-z])[).:]|{_BEFORE}([A-Z])[):](?!\w)|\\boxed\{{\W*([A-Za-z])\W*\}}")
_SAID = re.compile(
    rf"(answer|option|choice)(?:\s+is)?[\s:=*_\"'(\[]*{_BEFORE}([A-Za-z]){_BEHIND}"
    rf"((?:[\s)\]*_,/&]{{0,8}}(?:\b(?:and|or)\b)?[\s(\[*_]{{0,4}}{_BEFORE}[A-Z]{_BEHIND})*)",
    re.IGNORECASE,
)
# Mathematics around a letter: \( B \), $B$, \text{B}.
_SHOWN_AS = re.compile(r"\\[()\[\]]|\$|\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}")
_LOWER_WORD = re.compile(r"\s+([a-zà-ɏ]\w*)")
# What follows the letter of an option, but not an article.
_NO_NOUNS = frozenset({"is", "are", "was", "and", "or", "but", "because", "since", "as", "seems", "looks", "would"})
_NEAR = 40
_NEGATED = re.compile(r"(\bnot|n['’]t|\bnever|\bneither|\bnor|\bexcept)\W+(?:\w+\W+)?$", re.IGNORECASE)

_BOX = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_LATEX = re.compile(r"\\[A-Za-z]+")
_LETTER_LIST = re.compile(
    r"(?:^|\b(?:answers?|options?|choices?)(?:\s+(?:is|are))?[\s:*]+)"
    r"((?:\(?[A-Z]\)?)(?:\s*(?:[,&/]\s*(?:and\s+)?|and\s+)\(?[A-Z]\)?)*)[\W_]*$"
)
_END_MARKS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)(?:e[+-]?\d+)?")

Words = tuple[str, ...]
Short = str | float


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


def opening_yes_or_no(raw: str) -> str | None:
    """`yes` or `no` where it stands within the first four characters, as MME has it."""
    opening = raw.strip().casefold()[:4]
    return next((word for word in ("yes", "no") if word in opening), None)


def no_before_yes(raw: str) -> str | None:
    """`no` where the first sentence holds `no` or `not`, else `yes` where it holds that, as POPE has it."""
    said = set(words(raw.split(".", maxsplit=1)[0]))
    if said & _NEGATIONS:
        return "no"
    return "yes" if "yes" in said else None


def option_letter(raw: str, choices: Sequence[str]) -> str | None:
    """The letter (A, B, …) of the one option that `raw` names, by letter or by text; None for none, or several.

    `choices` are the texts of the options, A first. Tried in this order: the whole generation is a letter or an
    option's text; "answer … B", the last one; "B." or "(B)" as options are listed; "option B"; one capital letter on
    its own that is no article and not negated; the text of one option. What contradicts itself is not decided.
    """
    said = _SHOWN_AS.sub(r"\1", unicodedata.normalize("NFKC", raw)).strip()
    letters = ascii_uppercase[: len(choices)]
    whole = _WHOLE.fullmatch(said)
    if whole is not None and whole.group(1).upper() in letters:
        return whole.group(1).upper()
    if len(exact := [place for place, choice in enumerate(choices) if _plain(choice) == _plain(said)]) == 1:
        return letters[exact[0]]
    for named in (_concluded(said, letters), _listed(said, letters), _named_options(said, letters)):
        if named:
            return named.pop() if len(named) == 1 else None
    named = _free_letters(said, choices, letters)
    if not named:
        return _by_text(said, choices, letters)
    return named.pop() if len(named) == 1 else None


def boxed_letter(raw: str, options: int) -> str | None:
    """The letter in the last `\\boxed{}`; None where that holds something else."""
    boxes = _BOX.findall(raw)
    letter = "".join(re.findall("[A-Za-z]", _LATEX.sub("", boxes[-1]))).upper() if boxes else ""
    return letter if len(letter) == 1 and letter in ascii_uppercase[:options] else None


def listed_letters(raw: str, options: int) -> str | None:
    """All letters of a list that ends the generation ("The answers are A and C."), sorted; None where none does."""
    found = _LETTER_LIST.search(raw.strip())
    letters = "".join(sorted(set(re.findall(r"\b[A-Z]\b", found.group(1))))) if found else ""
    return letters if letters and set(letters) <= set(ascii_uppercase[:options]) else None


def short_answers(raw: str) -> list[Short]:
    """What a generation may mean as a short answer, as MMMU has it: the ends of its lines, and the numbers in them.

    Of every line the shortest end counts that follows a word such as `is`, in the last line also `=`; the whole
    generation where no line has one.
    """
    said = raw.strip().strip(".").lower()
    lines = said.split("\n")
    ends = []
    for place, line in enumerate(lines):
        marks = (*_END_MARKS, "=") if place == len(lines) - 1 else _END_MARKS
        tails = [tail for mark in marks if mark in line and (tail := line.rsplit(mark, 1)[1].strip())]
        ends += [tail for tail in sorted(tails, key=len)[:1] if len(tail) > 1 or tail.isalnum()]
    ends = ends or [said]
    numbers = [number for end in ends for number in _NUMBER.findall(end)]
    return list(dict.fromkeys(form for text in (*ends, *numbers) for form in short_forms(text)))


def short_forms(answer: str) -> list[Short]:
    """How a short answer is compared: numbers to two places, single letters with a space before or behind."""
    text = answer.strip()
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text] if text else []
    return [round(number, 2)] if math.isfinite(number) else [text.lower()]


def _concluded(said: str, letters: str) -> set[str]:
    """The letters of the last "answer is B" or "correct option is B"."""
    found = [
        _said_letters(match, letters)
        for match in _SAID.finditer(said)
        if match.group(1).lower() == "answer" or said[: match.start()].lower().endswith("correct ")
    ]
    return next((named for named in reversed(found) if named), set())


def _named_options(said: str, letters: str) -> set[str]:
    """The letters of every "option B"."""
    return {letter for match in _SAID.finditer(said) for letter in _said_letters(match, letters)}


def _said_letters(match: re.Match[str], letters: str) -> set[str]:
    first = match.group(2)
    if first.upper() in "AI" and _is_a_word(match.string, match.start(2), match.end(2)):
        return set()
    more = _LETTER.findall(match.group(3))
    return {letter for letter in (first.upper(), *more) if letter in letters}


def _listed(said: str, letters: str) -> set[str]:
    """The letters of every "B." at the start of a line, "(B)", "B:" and `\\boxed{B}`."""
    found = {(one or other or boxed).upper() for one, other, boxed in _LISTED.findall(said)}
    return found & set(letters)


def _free_letters(said: str, choices: Sequence[str], letters: str) -> set[str]:
    """Capital letters on their own outside the options' own texts; none where one is negated."""
    for choice in sorted(choices, key=len, reverse=True):
        if len(choice.split()) > 1:
            said = re.sub(re.escape(choice.strip()), " ", said, flags=re.IGNORECASE)
    found = [
        match
        for match in _LETTER.finditer(said)
        if match.group(1) in letters and not (match.group(1) in "AI" and _is_a_word(said, match.start(), match.end()))
    ]
    if any(_NEGATED.search(said[max(0, match.start() - _NEAR) : match.start()]) for match in found):
        return set()
    return {match.group(1) for match in found}


def _is_a_word(said: str, start: int, end: int) -> bool:
    """Whether the letter there is the article or the pronoun of a sentence: a word that is no verb stands behind it."""
    behind = _LOWER_WORD.match(said, end)
    is_lower = said[start].islower()
    return behind is not None and (is_lower or behind.group(1) not in _NO_NOUNS)


def _by_text(said: str, choices: Sequence[str], letters: str) -> str | None:
    by_words: dict[Words, set[str]] = {}
    for letter, choice in zip(letters, choices, strict=False):
        by_words.setdefault(words(choice), set()).add(letter)
    known = frozenset(choice for choice, named in by_words.items() if choice and len(named) == 1)
    found = find_choice(said, known)
    return None if found is None else next(iter(by_words[tuple(found.split())]))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


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
