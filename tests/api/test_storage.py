"""Uploads as fal's clients send them, and what comes back: as it was sent, as an attachment, to those who have the address."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from api.labels import Label, safe_name
from api.limits import Limits
from api.parts import Parts
from api.settings import Api
from engine import InvalidRequest
from tests.api.storage_app import storage_api, storage_app

LOCAL = "http://127.0.0.1:7860"


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return storage_api(tmp_path)


@pytest.fixture
def client(api: Api) -> TestClient:
    return TestClient(storage_app(api), base_url=LOCAL)


def initiate(client: TestClient, *, parts: bool = False, **more: Any) -> dict[str, str]:
    path = "/rest/storage/upload/initiate" + ("-multipart" if parts else "")
    body = {"file_name": "n.txt", "content_type": "text/plain"}
    answer = client.post(f"{path}?storage_type=fal-cdn-v3", json=body | more)
    assert answer.status_code == 200
    return answer.json()  # type: ignore[no-any-return]


def upload(client: TestClient, data: bytes = b"hello", **headers: str) -> str:
    sent = {"content-type": "text/plain", "x-fal-file-name": "n.txt"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post("/cdn/files/upload", content=data, headers=sent)
    assert answer.status_code == 200
    return str(answer.json()["access_url"])


def test_the_token_of_the_python_client(client: TestClient) -> None:
    answer = client.post("/rest/storage/auth/token?storage_type=fal-cdn-v3", json={}).json()

    assert answer["token_type"] == "Bearer"
    assert answer["base_url"] == f"{LOCAL}/cdn"
    assert answer["expires_at"].endswith("+00:00")
    left = datetime.fromisoformat(answer["expires_at"]) - datetime.now().astimezone()
    assert 3500 < left.total_seconds() <= 3600

    token = f"Bearer {answer['token']}"
    url = upload(client, authorization=token)
    assert url.startswith(f"{LOCAL}/cdn/files/")
    assert url.endswith("/n.txt")
    assert client.get(url).content == b"hello"


def test_an_upload_without_a_name_gets_one(client: TestClient) -> None:
    data = b"\x89PNG"
    answer = client.post("/cdn/files/upload", content=data, headers={"content-type": "image/jpeg"})
    assert answer.json()["access_url"].endswith(".jpg")


def test_initiate_and_put(client: TestClient) -> None:
    begun = initiate(client, file_name="Bäume 1.png", content_type="image/png")
    assert begun["file_url"].endswith("/Baume_1.png")
    assert client.get(begun["file_url"]).status_code == 404

    for data in (b"first", b"second"):  # a client that tries again
        assert client.put(begun["upload_url"], content=data).status_code == 200
        answer = client.get(begun["file_url"])
        assert answer.content == data
        assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    "change",
    [
        lambda url: url.partition("?")[0],
        lambda url: url[:-1],
        lambda url: url.replace("/n.txt", "/m.txt"),
        lambda url: url.replace("/files/", "/files/x", 1),
        lambda url: url.replace("signature=", "signature=x"),
    ],
)
def test_a_put_needs_the_signature_of_its_address(client: TestClient, change: Any) -> None:
    begun = initiate(client)
    assert client.put(change(begun["upload_url"]), content=b"x").status_code in (403, 404)
    assert client.get(begun["file_url"]).status_code == 404


def test_a_signature_is_good_for_one_way_of_sending(client: TestClient) -> None:
    at_once, in_parts = initiate(client), initiate(client, parts=True)
    ticket = at_once["upload_url"].partition("signature=")[2]
    other = in_parts["upload_url"].rpartition("/")[2]

    assert (
        client.put(f"{at_once['file_url']}/multipart/{ticket}/1", content=b"x").status_code == 403
    )
    assert client.put(f"{in_parts['file_url']}?signature={other}", content=b"x").status_code == 403


def test_parts_of_the_javascript_client(client: TestClient, api: Api) -> None:
    begun = initiate(client, parts=True)
    sent = []
    for number, data in ((2, b"world"), (1, b"wrong "), (1, b"hello ")):
        answer = client.put(f"{begun['upload_url']}/{number}", content=data)
        assert answer.json() == {"partNumber": number, "etag": answer.headers["etag"]}
        sent = [part for part in sent if part["partNumber"] != number] + [answer.json()]
    assert client.get(begun["file_url"]).status_code == 404

    for _ in range(2):  # a client that tries again
        done = client.post(f"{begun['upload_url']}/complete", json={"parts": sent})
        assert done.json() == {"access_url": begun["file_url"]}
    assert client.get(begun["file_url"]).content == b"hello world"
    assert len(list(api.files.folder.iterdir())) == 2
    assert api.files.room.used("local") == 11


def test_parts_of_the_python_client(client: TestClient) -> None:
    headers = {"content-type": "text/plain", "x-fal-file-name": "big.txt"}
    begun = client.post("/cdn/files/upload/multipart", headers=headers).json()
    url = f"{begun['access_url']}/multipart/{begun['uploadId']}"
    parts = [
        {"partNumber": n, "etag": client.put(f"{url}/{n}", content=bytes([n]) * 9).headers["etag"]}
        for n in (3, 1, 2)
    ]

    assert client.post(f"{url}/complete", json={"parts": parts}).status_code == 200
    assert client.get(begun["access_url"]).content == b"".join(bytes([n]) * 9 for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"parts": [{"partNumber": 1, "etag": "other"}]}, 400),
        ({"parts": [{"partNumber": 2, "etag": "x"}]}, 400),
        ({"parts": [{"partNumber": "x", "etag": "x"}]}, 400),
        ({"parts": [1]}, 400),
        ({"parts": 1}, 400),
        ([], 400),
    ],
)
def test_a_file_is_not_put_together_from_other_parts(
    client: TestClient, body: Any, status: int
) -> None:
    begun = initiate(client, parts=True)
    client.put(f"{begun['upload_url']}/1", content=b"x")
    assert client.post(f"{begun['upload_url']}/complete", json=body).status_code == status
    assert client.get(begun["file_url"]).status_code == 404


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", "1" * 30, "1.5", "٣"])
def test_a_part_has_a_number(client: TestClient, number: str) -> None:
    begun = initiate(client, parts=True)
    assert client.put(f"{begun['upload_url']}/{number}", content=b"x").status_code == 400


def test_an_upload_that_was_never_begun_is_not_completed(client: TestClient) -> None:
    begun = initiate(client, parts=True)
    assert client.post(f"{begun['upload_url']}/complete", json={"parts": []}).status_code == 400


@pytest.mark.parametrize("parts", [False, True])
def test_too_large_a_file_is_refused(tmp_path: Path, parts: bool) -> None:
    api = storage_api(tmp_path, Limits(file_bytes=100_000))
    client = TestClient(storage_app(api), base_url=LOCAL)
    begun = initiate(client, parts=parts)
    url = begun["upload_url"]

    assert client.put(f"{url}/1" if parts else url, content=b"x" * 100_001).status_code == 413
    if parts:
        assert client.put(f"{url}/1", content=b"x" * 60_000).status_code == 200
        assert client.put(f"{url}/2", content=b"x" * 60_000).status_code == 413
    else:
        assert client.post("/cdn/files/upload", content=b"x" * 100_001).status_code == 413
        assert api.files.room.used("local") == 0


def test_what_is_said_of_a_file_is_short_and_of_its_type(client: TestClient) -> None:
    path = "/rest/storage/upload/initiate"
    assert client.post(path, content=b"x" * 3_000_000).status_code == 413
    for body in (b"{", b"[]", b'{"file_name": 1}', b"[" * 100_000, b"\xff"):
        assert client.post(path, content=body).status_code == 400
    assert client.post(path).status_code == 200


@pytest.mark.parametrize(
    ("kind", "name", "disposition"),
    [
        ("image/png", "a.png", "inline"),
        ("image/svg+xml", "a.svg", "attachment"),
        ("text/html", "a.html", "attachment"),
        ("text/plain", "n.txt", "attachment"),
        ("image/gif", "a.gif", "attachment"),
        ("", "x", "attachment"),
    ],
)
def test_only_pictures_are_shown(
    client: TestClient, kind: str, name: str, disposition: str
) -> None:
    answer = client.get(upload(client, content_type=kind, x_fal_file_name=name))

    assert answer.headers["content-type"].partition(";")[0] == kind or "application/octet-stream"
    assert answer.headers["content-disposition"] == f'{disposition}; filename="{name}"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["content-length"] == "5"


def test_head_ranges_and_tags(client: TestClient) -> None:
    url = upload(client, b"0123456789")
    head = client.head(url)
    tag = head.headers["etag"]

    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")
    part = client.get(url, headers={"range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["content-range"] == "bytes 2-4/10"
    assert client.get(url, headers={"range": "bytes=20-"}).status_code == 416
    again = client.get(url, headers={"range": "bytes=2-4", "if-range": tag})
    assert again.status_code == 206
    assert client.get(url, headers={"range": "bytes=2-4", "if-range": '"x"'}).content[:2] == b"01"
    for known in (tag, f'"x", W/{tag}'):
        same = client.get(url, headers={"if-none-match": known})
        assert (same.status_code, same.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/cdn/files/../../secret.key",
        "/cdn/files/%2e%2e/secret.key",
        "/cdn/files/..%2f..%2fsecret.key/x",
        "/cdn/files/{token}/..%2f{token}.json",
        "/cdn/files/{token}/%2e%2e",
        "/cdn/files/{token}.json/n.txt",
        "/cdn/files/{token}/n.txt%00",
        "/cdn/files/{token}/n.txt/",
        "/cdn/files//etc/passwd",
        "/cdn/files/{token}",
        "/cdn/files/",
    ],
)
def test_nothing_else_is_given_out(client: TestClient, path: str) -> None:
    token = upload(client).split("/")[-2]
    answer = client.get(path.format(token=token), follow_redirects=False)
    assert answer.status_code in (404, 405)


WAYS_UP = (
    "../",
    "..\\",
    "%2e%2e%2f",
    "%2e%2e/",
    "..%2f",
    "..%5c",
    "%252e%252e%252f",
    "....//",
    "..;/",
    "%c0%ae/",
)
TARGETS = ("etc/passwd", "secret.key", "keys.json", "pochade.sqlite", "files/{token}.json", "lock")
ODD = (
    *(
        "C:\\boot.ini",
        "//host/share",
        "\\\\host\\share",
        "x\0.png",
        "CON",
        "NUL.txt",
        "a...",
        "a ",
        "~root",
        "$HOME",
    ),
    *("a" * 4096, "|id", ";id", "`id`", "\r\nX: y", "\x1b[31m", "<b>.html", "%n%s", "{{7*7}}"),
)
PAYLOADS = [*(up * n + target for up in WAYS_UP for n in (1, 3, 8) for target in TARGETS), *ODD]


def test_no_path_leads_outside(client: TestClient, api: Api) -> None:
    """Names and addresses of every kind: nothing is read or written but files of the store."""
    assert len(PAYLOADS) >= 199
    token = upload(client).split("/")[-2]
    home = api.files.folder.parent
    before = {path for path in home.parent.rglob("*") if path.parent != api.files.folder}
    for payload in PAYLOADS:
        text = payload.format(token=token) if "{token}" in payload else payload
        escaped = quote(text, safe="/%\\;")
        for path in (f"/cdn/files/{escaped}", f"/cdn/files/{token}/{escaped}"):
            answer = client.get(path, follow_redirects=False)
            assert answer.status_code == 404, (path, answer.content)
    for payload in PAYLOADS[::9]:
        begun = initiate(client, file_name=payload)
        assert client.put(begun["upload_url"], content=b"x").status_code == 200
        assert client.get(begun["file_url"]).content == b"x"
    after = {path for path in home.parent.rglob("*") if path.parent != api.files.folder}
    assert after == before
    assert {path.suffix for path in api.files.folder.iterdir()} == {".bin", ".json"}


def test_a_picture_that_its_owner_deleted_is_gone(
    client: TestClient, api: Api, tmp_path: Path
) -> None:
    picture = tmp_path / "outputs" / "a.png"
    picture.parent.mkdir()
    picture.write_bytes(b"x")
    link = api.files.link(picture, content_type="image/png", file_name="a.png", owner="ada")
    url = api.files.address(link, f"{LOCAL}/cdn")
    assert client.get(url).content == b"x"

    picture.unlink()
    assert client.get(url).status_code == 404


def test_a_key_is_needed_where_the_studio_is_not_open(tmp_path: Path) -> None:
    api = storage_api(tmp_path, is_open=lambda: False)
    client = TestClient(storage_app(api), base_url=LOCAL)
    key = api.keys.add("ada")
    closed = [
        "/rest/storage/auth/token",
        "/rest/storage/upload/initiate",
        "/rest/storage/upload/initiate-multipart",
        "/rest/tokens",
        "/cdn/files/upload",
        "/cdn/files/upload/multipart",
    ]
    for path in closed:
        for header in ({}, {"authorization": "Key a:b"}, {"authorization": "Bearer x"}):
            answer = client.post(path, headers=header)
            assert answer.status_code == 401
            assert answer.json() == {"detail": "No user found for Key ID and Secret"}
        assert client.post(path, headers={"authorization": f"Key {key}"}).status_code == 200

    token = client.post(closed[0], headers={"authorization": f"Key {key}"}).json()["token"]
    url = upload(client, authorization=f"Bearer {token}")
    stored = api.files.find(url)
    assert stored is not None
    assert stored.owner == "ada"
    assert client.get(url).content == b"hello"  # the address is enough


def test_a_token_never_leads_to_another(tmp_path: Path) -> None:
    api = storage_api(tmp_path, is_open=lambda: False)
    client = TestClient(storage_app(api), base_url=LOCAL)
    key = {"authorization": f"Key {api.keys.add('ada')}"}
    run_token = client.post("/rest/tokens", headers=key).json()
    upload_token = client.post("/rest/storage/auth/token", headers=key).json()["token"]
    for path in ("/rest/tokens", "/rest/storage/auth/token", "/rest/storage/upload/initiate"):
        for token in (run_token, upload_token):
            assert client.post(f"{path}?fal_jwt_token={token}").status_code == 401
            sent = {"authorization": f"Bearer {token}"}
            assert client.post(path, headers=sent).status_code == 401


def test_a_part_that_comes_after_its_file_was_put_together_leaves_nothing(api: Api) -> None:
    parts, label = Parts(api.files), Label(owner="ada", token="t" * 32)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"late"
        parts.join(label.token or "", {}, label)

    async def at_once() -> AsyncIterator[bytes]:
        yield b"hello"

    asyncio.run(parts.receive(label.token or "", "ada", 1, at_once()))
    with pytest.raises(InvalidRequest, match="under way"):
        asyncio.run(parts.receive(label.token or "", "ada", 2, slowly()))

    assert api.files.room.total == len(b"hello")
    assert len(list(api.files.folder.iterdir())) == 2  # the file and its record


@pytest.mark.parametrize("header", ["x-fal-object-lifecycle", "x-fal-object-lifecycle-preference"])
def test_a_file_lives_as_long_as_is_asked(client: TestClient, api: Api, header: str) -> None:
    value = json.dumps({"expiration_duration_seconds": 3600, "initial_acl": {"default": "allow"}})
    begun = client.post("/rest/storage/upload/initiate", json={}, headers={header: value}).json()
    client.put(begun["upload_url"], content=b"x")
    for url in (begun["file_url"], upload(client, **{header: value})):
        stored = api.files.find(url)
        assert stored is not None
        assert stored.expires_at - stored.made_at == 3600


def test_addresses_are_those_the_client_knows_us_by(tmp_path: Path) -> None:
    api = storage_api(tmp_path)
    app = storage_app(api)
    for base, host, cdn in [
        ("http://studio.local:7860", "studio.local", "http://studio.local:7860/cdn"),
        ("https://rest.fal.ai", "rest.fal.ai", "https://v3.fal.media"),
        ("http://REST.alpha.fal.ai", "rest.alpha.fal.ai", "https://v3.fal.media"),
    ]:
        begun = initiate(TestClient(app, base_url=base))
        assert begun["file_url"].startswith(f"{cdn}/files/"), host
        path = "/cdn" + urlsplit(begun["upload_url"])._replace(scheme="", netloc="").geturl()
        assert (
            TestClient(app).put(path.replace("/cdn/cdn", "/cdn"), content=b"x").status_code == 200
        )
        assert api.files.find(begun["file_url"]) is not None

    public = storage_api(tmp_path / "public", public_url="https://studio.example/")
    begun = initiate(TestClient(storage_app(public)))
    assert begun["file_url"].startswith("https://studio.example/cdn/files/")


@given(st.text(max_size=300), st.text(max_size=30))
def test_a_safe_name_stays_as_it_is(name: str, kind: str) -> None:
    safe = safe_name(name, kind)
    assert safe_name(safe, "text/plain") == safe
    assert 0 < len(safe) <= 100
