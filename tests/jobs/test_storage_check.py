"""Whoever watches the server hears in a sentence that a disk is full or the database cannot be written, and when it can."""

import contextlib
import re
import sqlite3

import pytest

from jobs import StorageFailed
from jobs.database import Database
from jobs.storage_check import StorageCheck
from jobs.store import Store

NEVER = 2**62


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'pochade.sqlite'}")
    database.upgrade()
    yield database
    database.close()


def test_a_fresh_queue_has_nothing_wrong(studio):
    jobs = studio.open()
    jobs.check_storage()
    assert not studio.output_dir.exists()


def test_a_full_disk_is_said_in_a_sentence(studio):
    jobs = studio.open(min_free_bytes=NEVER)
    with pytest.raises(StorageFailed) as caught:
        jobs.check_storage()
    assert re.fullmatch(r"disk: expected at least \d+ MiB free, got \d+ MiB", str(caught.value))


def test_the_fullest_disk_counts(database, tmp_path):
    folders = (tmp_path, tmp_path / "not" / "there" / "yet")
    assert StorageCheck(Store(database), folders, 1).look() is None
    assert "disk" in str(StorageCheck(Store(database), folders, NEVER).look())


def test_a_database_that_cannot_be_written_is_noticed_and_so_is_its_return(database, tmp_path):
    Store(database).begin_life()
    check = StorageCheck(Store(database), [tmp_path], 1, look_s=0.0)
    assert check.look() is None
    with contextlib.closing(sqlite3.connect(tmp_path / "pochade.sqlite")) as other:
        other.execute("ALTER TABLE lives RENAME TO gone")
        assert str(check.look()) == "database: no such table: lives"
        other.execute("ALTER TABLE gone RENAME TO lives")
    assert check.look() is None


def test_who_asks_often_makes_it_write_seldom(database, tmp_path):
    check = StorageCheck(Store(database), [tmp_path], 1, look_s=3600.0)
    assert check.look() is None
    database.close()
    (tmp_path / "pochade.sqlite").unlink()
    assert check.look() is None
