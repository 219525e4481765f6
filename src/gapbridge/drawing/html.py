"""What every page shares: its style, its templates' filters, pictures inside the file, and how numbers are written."""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup


def environment(folder: Path) -> Environment:
    """The templates of a folder with the shared filters; HTML is escaped, an unknown name is an error."""
    found = Environment(
        loader=FileSystemLoader(folder),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"percent": percent, "figure": figure, "count": count}
    return found


def style() -> Markup:
    """The style sheet. Our own file, not data: it may hold characters that escaping would break."""
    return Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8"))  # noqa: S704


def data_uri(path: Path) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def percent(share: float) -> str:
    """A share as a percentage with one digit behind the point, on one line."""
    return f"{100 * share:.1f}\u00a0%"


def figure(value: float | None) -> str:
    """A measured number in three figures; a dash where there is none."""
    if value is None:
        return "–"
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def count(value: int | None) -> str:
    """A whole number with thin spaces between thousands; a dash where there is none."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")
