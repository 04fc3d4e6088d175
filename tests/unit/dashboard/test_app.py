from __future__ import annotations

import pytest

from ensconce.addresses import Address
from ensconce.dashboard.app import App
from ensconce.dashboard.auth import Gate
from ensconce.dashboard.watcher import Snapshot, Sources, Watcher
from ensconce.serving.http1.messages import HttpError, Request, Response

HOST = "127.0.0.1:8080"
TOKEN = "t" * 43


def app(*, with_form: bool = False) -> App:
    gate = Gate(TOKEN, once=not with_form, port=8080, now=lambda: 0.0)
    return App("digits", Watcher(Sources()), gate, Address("127.0.0.1", 8080), with_form, lambda: 0)


def ask(app: App, target: str, method: str = "GET", body: bytes = b"", host: str = HOST, cookie: str = "") -> Response:
    return app.answer(Request(method, target, {"host": host, "cookie": cookie}, body))


def enter(app: App) -> str:
    fields = dict(ask(app, f"/enter?token={TOKEN}").headers)
    return fields["set-cookie"].partition(";")[0]


def test_the_address_gives_a_cookie_once_and_the_cookie_the_page() -> None:
    dashboard = app()
    assert ask(dashboard, "/").status == 401
    answer = ask(dashboard, f"/enter?token={TOKEN}")
    fields = dict(answer.headers)
    assert (answer.status, fields["location"]) == (303, "/")
    cookie = fields["set-cookie"].partition(";")[0]
    assert ask(dashboard, "/", cookie=cookie).status == 200
    again = ask(dashboard, f"/enter?token={TOKEN}")
    assert again.status == 403
    assert "set-cookie" not in dict(again.headers)


def test_a_form_takes_the_token_as_often_as_it_is_right() -> None:
    dashboard = app(with_form=True)
    assert b"<form" in ask(dashboard, "/").body
    assert ask(dashboard, "/enter").status == 200
    for _ in range(2):
        assert ask(dashboard, "/enter", "POST", f"token={TOKEN}".encode()).status == 303
    assert ask(dashboard, "/enter", "POST", b"token=wrong").status == 403
    assert ask(dashboard, "/enter", "POST", b"\xff&&;=" * 50).status == 403
    # In an address it would be in the browser's history, and it lasts.
    assert "set-cookie" not in dict(ask(dashboard, f"/enter?token={TOKEN}").headers)


def test_however_many_look_the_page_is_written_once_for_a_moment() -> None:
    dashboard = app()
    cookie = enter(dashboard)
    first, second = (ask(dashboard, "/", cookie=cookie).body for _ in range(2))
    assert first is second
    dashboard.watcher.snapshot = Snapshot(at=1)
    assert ask(dashboard, "/", cookie=cookie).body != first


def test_tokens_are_not_tried_without_end() -> None:
    dashboard = app(with_form=True)
    answers = [ask(dashboard, "/enter", "POST", b"token=wrong").status for _ in range(20)]
    assert answers == [403] * 20
    with pytest.raises(HttpError) as caught:
        ask(dashboard, "/enter", "POST", f"token={TOKEN}".encode())
    assert caught.value.status == 429


@pytest.mark.parametrize("host", ["evil.test:8080", "127.0.0.1", "", "localhost:8081"])
def test_other_names_are_not_answered_for_anything(host: str) -> None:
    dashboard = app()
    cookie = enter(dashboard)
    for target in ("/", f"/enter?token={TOKEN}", "/static/dashboard.css"):
        with pytest.raises(HttpError) as caught:
            ask(dashboard, target, host=host, cookie=cookie)
        assert caught.value.status == 421


@pytest.mark.parametrize(
    "target", ["/?x", "/static/../auth.py", "/static/dashboard.css?x", "//[", "http://127.0.0.1:8080/"]
)
def test_there_is_one_page(target: str) -> None:
    dashboard = app()
    assert ask(dashboard, target).status == 401
    with pytest.raises(HttpError) as caught:
        ask(dashboard, target, cookie=enter(dashboard))
    assert caught.value.status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("target", ["/", "/enter", "/static/dashboard.js"])
def test_nothing_can_be_changed(method: str, target: str) -> None:
    dashboard = app()
    with pytest.raises(HttpError) as caught:
        ask(dashboard, target, method, cookie=enter(dashboard))
    assert caught.value.status == 405


def test_every_answer_has_the_policy_that_lets_nothing_else_in() -> None:
    dashboard = app()
    cookie = enter(dashboard)
    for target in ("/", "/static/dashboard.css", "/static/dashboard.js", "/enter?token=x", "/enter"):
        fields = dict(ask(dashboard, target, cookie=cookie).headers)
        assert fields["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert fields["cache-control"] == "no-store"
        assert fields["referrer-policy"] == "no-referrer"
