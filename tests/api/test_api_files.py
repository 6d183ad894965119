"""Files are there whole under names that nobody can guess, for a week, within bounds, and nothing else ever is."""

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from api.files import DAY_S, FileStore
from api.labels import Label, safe_name, safe_type, seconds_of
from api.limits import Limits
from api.room import NoRoom

BASE = "http://127.0.0.1:7860/cdn"


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "2026-11-21"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(b"picture")
    return folder.parent


def open_store(tmp_path: Path, clock: Clock | None = None, **limits: float) -> FileStore:
    return FileStore(
        tmp_path / "data",
        tmp_path / "outputs",
        Limits(**limits),  # type: ignore[arg-type]
        clock or Clock(),
    )


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def on_disk(store: FileStore) -> int:
    return len(list(store.folder.iterdir()))


def test_a_file_is_found_by_its_address(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    file = store.put(b"hello", content_type="text/plain", file_name="n.txt", owner="ada")
    address = store.address(file, BASE)

    assert address == f"{BASE}/files/{file.token}/n.txt"
    assert len(file.token) == 32
    for url in (address, f"https://v3.fal.media/files/{file.token}/n.txt", f"{address}?x=1#y"):
        found = store.find(url)
        assert found is not None
        assert found.path.read_bytes() == b"hello"
        assert (found.size, found.content_type, found.owner) == (5, "text/plain", "ada")


@pytest.mark.parametrize(
    "url",
    [
        "{base}/files/{token}/other.txt",
        "{base}/files/{token}",
        "{base}/files/{token}/n.txt/",
        "{base}/files/{token}/../{token}/n.txt",
        "{base}/files/{token}/n.txt/files/x",
        "{base}/files/" + "a" * 32 + "/n.txt",
        "{base}/files/../../secret.key",
        "file:///files/{token}/n.txt",
        "data:text/plain,/files/{token}/n.txt",
        "/files/{token}/n.txt",
        "http://[::1/files/{token}/n.txt",
        "",
    ],
)
def test_nothing_else_is_found(tmp_path: Path, url: str) -> None:
    store = open_store(tmp_path)
    file = store.put(b"hello", content_type="text/plain", file_name="n.txt", owner="ada")
    assert store.find(url.format(base=BASE, token=file.token)) is None


def test_files_survive_a_restart(tmp_path: Path, output_dir: Path) -> None:
    store = open_store(tmp_path)
    file = store.put(b"hello", content_type="text/plain", owner="ada")
    link = store.link(
        output_dir / "2026-11-21" / "a.png", content_type="image/png", file_name="a.png", owner="bo"
    )

    again = open_store(tmp_path)

    assert again.find(store.address(file, BASE)) == file
    assert again.find(store.address(link, BASE)) == link
    assert again.room.used("ada") == 5
    assert again.room.used("bo") == 0


def test_what_did_not_arrive_whole_is_gone_after_a_restart(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    kept = store.put(b"hello", content_type="text/plain", owner="ada")
    gone = store.put(b"world", content_type="text/plain", owner="ada")
    gone.path.unlink()
    for name, text in {
        "x.bin": "no record",
        ".y.part": "half",
        f"{'c' * 32}.json": "{",
        f"{'d' * 32}.json": "[]",
        f"{'e' * 32}.json": json.dumps({"is_linked": True, "path": "/etc/passwd"}),
    }.items():
        (store.folder / name).write_text(text)

    again = open_store(tmp_path)

    assert {path.stem for path in again.folder.iterdir()} == {kept.token}
    assert again.room.used("ada") == 5


def test_a_record_cannot_lead_outside(tmp_path: Path, output_dir: Path) -> None:
    store = open_store(tmp_path)
    link = store.link(
        output_dir / "2026-11-21" / "a.png", content_type="image/png", file_name="a.png", owner="bo"
    )
    record = store.folder / f"{link.token}.json"
    (tmp_path / "private").write_text("secret")
    facts = json.loads(record.read_text()) | {"path": str(tmp_path / "private")}
    record.write_text(json.dumps(facts))

    assert open_store(tmp_path).find_token(link.token) is None


def test_a_file_lives_a_week(tmp_path: Path, clock: Clock) -> None:
    store = open_store(tmp_path, clock)
    file = store.put(b"hello", content_type="text/plain", owner="ada")

    clock.now += 7 * DAY_S - 1
    store.sweep()
    assert store.find_token(file.token) is not None
    clock.now += 1
    assert store.find_token(file.token) is None
    store.sweep()
    assert on_disk(store) == 0
    assert store.room.used("ada") == 0


def test_a_file_lives_as_short_as_is_asked(tmp_path: Path, clock: Clock) -> None:
    store = open_store(tmp_path, clock)
    for seconds, lives in ((60.0, 60.0), (1e9, 7 * DAY_S)):
        label = Label(owner="ada", seconds=seconds)
        file = asyncio.run(store.receive(chunks(b"x"), label))
        assert file.expires_at - clock.now == lives


def test_what_is_over_is_removed_in_the_background(tmp_path: Path, clock: Clock) -> None:
    store = open_store(tmp_path, clock)
    store.start()
    store.close()  # returns at once, whatever the time until the next look


def test_a_picture_is_linked_where_it_lies(tmp_path: Path, output_dir: Path, clock: Clock) -> None:
    store, path = open_store(tmp_path, clock), output_dir / "2026-11-21" / "a.png"

    def link(owner: str) -> str:
        file = store.link(path, content_type="image/png", file_name="a.png", owner=owner)
        return store.address(file, BASE)

    first = link("ada")

    assert link("ada") == first
    assert link("bob") != first
    assert on_disk(store) == 2  # records only
    clock.now += 8 * DAY_S
    store.sweep()
    assert path.read_bytes() == b"picture"
    assert store.find(first) is None


def test_nothing_outside_the_output_folder_is_linked(tmp_path: Path, output_dir: Path) -> None:
    store = open_store(tmp_path)
    (tmp_path / "private").write_text("secret")
    (output_dir / "way.png").symlink_to(tmp_path / "private")
    for path in (tmp_path / "private", output_dir / ".." / "private", output_dir / "way.png"):
        with pytest.raises(ValueError, match="expected a picture of the output folder"):
            store.link(path, content_type="image/png", file_name="a.png", owner="ada")


def test_a_file_comes_by_and_by(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    parts = [bytes([number]) * 400_000 for number in range(9)]

    file = asyncio.run(store.receive(chunks(*parts), Label(owner="ada")))

    assert file.path.read_bytes() == b"".join(parts)
    assert file.size == store.room.used("ada") == 3_600_000
    assert on_disk(store) == 2


def test_a_file_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise ConnectionResetError

    store = open_store(tmp_path)
    with pytest.raises(ConnectionResetError):
        asyncio.run(store.receive(broken(), Label(owner="ada")))
    assert on_disk(store) == 0
    assert store.room.used("ada") == 0


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"file_bytes": 10}, "file: expected at most 10 bytes"),
        ({"owner_bytes": 15}, "of one owner"),
        ({"store_bytes": 15}, "got a full one"),
    ],
)
def test_room_is_bounded(tmp_path: Path, limits: dict[str, float], problem: str) -> None:
    store = open_store(tmp_path, **limits)
    first = store.put(b"1234567890", content_type="text/plain", owner="ada")

    for owner in ["ada", "bob"] if "store_bytes" in limits else ["ada"]:
        with pytest.raises(NoRoom, match=problem):
            asyncio.run(store.receive(chunks(*[b"12345678"] * 1000), Label(owner=owner)))
    assert store.room.used("ada") == 10
    assert on_disk(store) == 2
    assert first.path.read_bytes() == b"1234567890"


def test_a_promised_address_is_kept_and_may_be_filled_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    label = Label(owner="ada", token=store.new_token(), file_name="a.txt")

    for text in (b"first one", b"second"):
        file = asyncio.run(store.receive(chunks(text), label))
        assert file.token == label.token
        assert file.path.read_bytes() == text
        assert store.room.used("ada") == len(text)
    assert on_disk(store) == 2


def test_what_is_sent_twice_at_once_is_there_once_and_counted_once(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    label = Label(owner="ada", token=store.new_token(), file_name="a.txt")
    for _ in range(10):
        arrivals = [store.arrival("ada") for _ in range(4)]
        for number, arrival in enumerate(arrivals):
            arrival.write(b"x" * (number + 1))
        with ThreadPoolExecutor(4) as pool:
            kept = list(pool.map(lambda item: store.keep(item.finish(), label), arrivals))
        left = store.find_token(label.token or "")
        assert left in kept
        assert left is not None
        assert len(left.path.read_bytes()) == left.size == store.room.total


@pytest.mark.parametrize("token", ["../x", "a" * 31, "a" * 33, "/" * 32, "." * 32, "ä" * 32])
def test_a_token_never_becomes_another_path(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        Label(owner="ada", token=token)


@pytest.mark.parametrize(
    ("name", "kind", "safe"),
    [
        ("n.txt", "text/plain", "n.txt"),
        ("Bäume im März.PNG", "image/png", "Baume_im_Marz.PNG"),
        ("../../etc/passwd", "text/plain", "passwd"),
        ("..\\..\\boot.ini", "text/plain", "boot.ini"),
        ("C:\\a\\b.txt", "text/plain", "b.txt"),
        ("//host/share/x.txt", "text/plain", "x.txt"),
        (".htaccess", "text/plain", "htaccess"),
        ("a\r\nX: y.txt", "text/plain", "a_X_y.txt"),
        ("a\0.png", "image/png", "a.png"),
        ("<script>.html", "text/html", "script_.html"),
        ("a" * 4096 + ".png", "image/png", "a" * 96 + ".png"),
        ("a" * 4096, "image/png", "a" * 100),
        ("x." + "y" * 4096, "image/png", "x." + "y" * 98),
        ('a"b;c.png', "image/png", "a_b_c.png"),
    ],
)
def test_names_are_made_plain(name: str, kind: str, safe: str) -> None:
    assert safe_name(name, kind) == safe


@pytest.mark.parametrize("name", [None, "", "..", "/", "...", "日本", "\0", "_-_"])
def test_a_name_is_made_up_where_there_is_none(name: str | None) -> None:
    made = safe_name(name, "image/jpeg")
    assert made.endswith(".jpg")
    assert len(made) == 16
    assert safe_name(name, "nonsense").endswith(".bin")


@pytest.mark.parametrize(
    ("said", "safe"),
    [
        ("Image/PNG; charset=x", "image/png"),
        ("", "application/octet-stream"),
        ("text/html\r\nX: y", "application/octet-stream"),
        ("a" * 70 + "/b", "application/octet-stream"),
        ("nonsense", "application/octet-stream"),
    ],
)
def test_types_are_made_plain(said: str, safe: str) -> None:
    assert safe_type(said) == safe


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ('{"expiration_duration_seconds": 3600, "initial_acl": {}}', 3600.0),
        ('{"expiration_duration_seconds": -1}', None),
        ('{"expiration_duration_seconds": "x"}', None),
        ('{"expiration_duration_seconds": null}', None),
        ("{}", None),
        ("[" * 5000, None),
        ("", None),
        (None, None),
    ],
)
def test_the_lifetime_is_read_from_the_header(header: str | None, seconds: float | None) -> None:
    assert seconds_of(header) == seconds


def test_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    async def large() -> AsyncIterator[bytes]:
        for _ in range(1600):
            yield bytes(65_536)

    store = open_store(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = asyncio.run(store.receive(large(), Label(owner="ada")))

    assert file.size == file.path.stat().st_size == 1600 * 65_536
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KiB
