"""The chat page in a real browser."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gapbridge.serving.app import make_app
from gapbridge.serving.settings import Settings
from gapbridge.serving.sources import FolderSource
from tests.evaluate.tiny import QUESTIONS
from tests.serving.browser import Page, open_browser
from tests.serving.chats import CHAT, encoded, first_message, picture, running

pytestmark = pytest.mark.browser

TURNS = "[...document.querySelectorAll('#turns li')].map(turn => turn.textContent)"
DONE = "document.querySelectorAll('#turns .assistant:not(.waiting)').length"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(picture(1)))
    return path


def served(model_folder: Path, token: str | None = None) -> Any:
    settings = Settings(max_answer_tokens=12, token=token)
    return running(make_app(settings, FolderSource(model_folder)), settings)


def answer_of(address: str, messages: list[Any], token: str = "") -> str:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    response = httpx.post(f"{address}{CHAT}", json={"messages": messages}, headers=headers, timeout=60)
    return response.json()["choices"][0]["message"]["content"]


def test_a_person_asks_twice_about_a_picture(page: Page, model_folder: Path, file: Path) -> None:
    with served(model_folder) as address:
        page.call("Page.navigate", url=f"{address}/")
        assert page.until("document.getElementById('model')?.textContent.trim().replace('…', '')") == "tiny"
        page.write("#question", QUESTIONS[0])
        page.press_enter()
        assert page.until("document.getElementById('error').textContent") == "Choose a picture first."
        page.choose("#file", file)
        assert page.until("document.getElementById('preview').naturalWidth") == 52
        page.press_enter()
        page.until(f"{DONE} === 1")
        first = answer_of(address, [first_message(1)])
        assert page.run(TURNS) == [QUESTIONS[0], first]
        page.write("#question", QUESTIONS[3])
        page.press_enter()
        page.until(f"{DONE} === 2")
        turns = [first_message(1), {"role": "assistant", "content": first}, {"role": "user", "content": QUESTIONS[3]}]
        assert page.run(TURNS)[2:] == [QUESTIONS[3], answer_of(address, turns)]
        page.run("document.getElementById('fresh').click()")
        assert page.run(TURNS) == []
    assert page.complaints == []


def test_a_picture_can_be_dropped_and_another_file_cannot(page: Page, model_folder: Path, file: Path) -> None:
    content = base64.b64encode(file.read_bytes()).decode()
    drop = """(() => {
        const bytes = Uint8Array.from(atob('%s'), letter => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], 'dropped', {type: '%s'}));
        document.getElementById('drop').dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, bubbles: true}));
    })()"""
    with served(model_folder) as address:
        page.call("Page.navigate", url=f"{address}/")
        page.until("document.getElementById('model')?.textContent === 'tiny'")
        page.run(drop % (content, "text/plain"))
        assert "no picture" in page.until("document.getElementById('error').textContent")
        page.run(drop % (content, "image/png"))
        assert page.until("document.getElementById('preview').naturalWidth") == 52
        page.run(drop % (base64.b64encode(b"no picture").decode(), "image/png"))
        page.write("#question", "what is it")
        page.press_enter()
        assert "send a PNG" in page.until("document.getElementById('error').textContent")
    assert page.complaints == [] or all("400" in complaint for complaint in page.complaints)


def test_the_token_is_asked_for(page: Page, model_folder: Path, file: Path) -> None:
    page.complaints.clear()
    with served(model_folder, token="secret") as address:  # noqa: S106
        page.call("Page.navigate", url=f"{address}/")
        page.until("document.getElementById('model')?.textContent === 'The service asks for a token.'")
        page.choose("#file", file)
        page.until("document.getElementById('preview').naturalWidth")
        page.write("#question", QUESTIONS[1])
        page.press_enter()
        assert "no valid token" in page.until("document.getElementById('error').textContent")
        page.write("#token", "secret")
        page.run("document.getElementById('question').focus()")
        page.until("document.getElementById('model').textContent === 'tiny'")
        page.press_enter()
        page.until(f"{DONE} === 1")
        expected = answer_of(address, [first_message(1, QUESTIONS[1])], "secret")
        assert page.run(TURNS) == [QUESTIONS[1], expected]
        assert page.run("JSON.stringify([localStorage.length, sessionStorage.length, document.cookie])") == '[0,0,""]'
    assert all("401" in complaint for complaint in page.complaints)


def test_the_policy_of_the_page_holds(page: Page, model_folder: Path) -> None:
    page.complaints.clear()
    with served(model_folder) as address:
        page.call("Page.navigate", url=f"{address}/")
        page.until("document.getElementById('model')?.textContent === 'tiny'")
        tried = "fetch('http://127.0.0.1:9/').then(() => 'went out', error => 'stayed')"
        assert page.run(tried) == "stayed"
        page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')")
        page.until("document.images[document.images.length - 1].complete")
        assert page.run("window.ran") is None
    assert any("Content Security Policy" in complaint for complaint in page.complaints)
