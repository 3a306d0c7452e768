"""Signing in, and what every answer carries."""

from collections.abc import Callable

from django.test import Client

from console.accounts.models import User
from console.accounts.permissions import Role

PASSWORD = "correct horse battery"


def test_signing_in_leads_to_where_one_wanted_to_go_and_nowhere_else(account: Callable[..., User]) -> None:
    account(name="mei")
    first = Client().get("/topics/?q=a")
    assert first["Location"] == "/sign-in/?next=/topics/%3Fq%3Da"
    form = {"username": "mei", "password": PASSWORD}
    assert Client().post("/sign-in/", {**form, "next": "/topics/?q=a"})["Location"] == "/topics/?q=a"
    assert Client().post("/sign-in/", {**form, "next": "https://elsewhere.example/"})["Location"] == "/"
    assert Client().post("/sign-in/", {**form, "next": "//elsewhere.example/"})["Location"] == "/"


def test_guessing_is_stopped_for_that_name_and_address_alone(account: Callable[..., User]) -> None:
    account(name="mei"), account(name="li")
    client = Client()
    codes = [client.post("/sign-in/", {"username": "mei", "password": "guess"}).status_code for _ in range(9)]
    assert codes[-1] == 429
    assert client.post("/sign-in/", {"username": "mei", "password": PASSWORD}).status_code == 429
    assert client.post("/sign-in/", {"username": "li", "password": PASSWORD}).status_code == 302


def test_a_form_without_its_token_is_refused(account: Callable[..., User]) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(account(), backend="django.contrib.auth.backends.ModelBackend")
    assert client.post("/topics/create/", {"name": "x", "partitions": 1, "cleanup": "delete"}).status_code == 403
    assert client.post("/sign-out/").status_code == 403


def test_every_page_carries_the_headers_that_protect_it(signed_in: Callable[..., Client]) -> None:
    for path in ("/sign-in/", "/", "/topics/", "/no-such-page/"):
        answer = signed_in().get(path)
        policy = answer["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "unsafe" not in policy
        assert answer["X-Frame-Options"] == "DENY"
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Referrer-Policy"] == "same-origin"


def test_language_theme_and_clock_are_kept_with_the_account(
    signed_in: Callable[..., Client], account: Callable[..., User]
) -> None:
    client = signed_in(Role.VIEWER)
    assert client.post("/preferences/", {"language": "zh-hans", "next": "/topics/"})["Location"] == "/topics/"
    assert client.post("/preferences/", {"theme": "dark", "quiet": "1"}).status_code == 204
    page = client.get("/topics/").content.decode()
    assert 'lang="zh-hans"' in page
    assert 'data-theme="dark"' in page
    client.cookies["sluice_zone"] = "Asia/Shanghai"
    assert 'data-zone="Asia/Shanghai"' in client.get("/topics/").content.decode()
    client.post("/preferences/", {"clock": "utc", "quiet": "1"})
    assert 'data-zone="UTC"' in client.get("/topics/").content.decode()
    assert client.post("/preferences/", {"theme": "pink", "quiet": "1"}).status_code == 422


def test_a_changed_password_needs_the_old_one_and_ends_the_other_sessions(account: Callable[..., User]) -> None:
    user = account(name="mei")
    here, elsewhere = Client(), Client()
    for client in (here, elsewhere):
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    assert here.post("/preferences/password/", {"current": "x", "new": "a longer secret"}).status_code == 422
    assert here.post("/preferences/password/", {"current": PASSWORD, "new": "short"}).status_code == 422
    assert here.post("/preferences/password/", {"current": PASSWORD, "new": "a longer secret"}).status_code == 302
    assert here.get("/").status_code == 200
    assert elsewhere.get("/").status_code == 302
