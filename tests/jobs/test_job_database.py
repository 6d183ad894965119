"""The schema is made by migrations alone, a change of it is whole or absent, and records survive their writer."""

import sqlite3

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from engine import Failed, Finished, ImageSkipped, Queued, Started, Stopped, plan_to_json
from jobs import StorageFailed, tables
from jobs.database import Database
from jobs.record import event_from_json, event_to_json
from jobs.store import NewJob, Store
from jobs.story import Entry
from tests.jobs.scripted_engine import toy_plan


@pytest.fixture
def database(tmp_path):
    found = Database(f"sqlite:///{tmp_path / '50% off.sqlite'}")
    yield found
    found.close()


def test_migrations_lead_from_nothing_to_the_tables(database):
    database.upgrade()
    database.upgrade()
    with database.transaction() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_pictures_of_an_older_version_stay_as_they_were(studio):
    studio.data_dir.mkdir()
    old = "2026-01-02/2026-01-02_03-04-05_0001_3f2a9c1e.jpg"
    path = studio.output_dir / old
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a picture")
    database = Database(f"sqlite:///{studio.data_dir / 'pochade.sqlite'}")
    database.upgrade("0001")
    plan = plan_to_json(toy_plan("a cat"))
    with database.transaction() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO jobs (id, owner, state, plan, inputs, prompt, search_text, attempt, alone, cancelled,"
                " created_at) VALUES ('3f2a9c1e', 'local', 'finished', :plan, '{}', 'a cat', 'a cat', 1, 0, 0, 1.0)"
            ),
            {"plan": plan},
        )
        connection.execute(
            sa.text(
                "INSERT INTO images (id, job_id, place, path, seed, width, height, content_type, created_at)"
                " VALUES ('i', '3f2a9c1e', 0, :path, 7, 64, 64, 'image/jpeg', 1.0)"
            ),
            {"path": old},
        )
    database.close()
    (image,) = studio.open().history(owner="local")
    assert (image.path.read_bytes(), image.plan) == (b"a picture", toy_plan("a cat"))


def test_an_interrupted_migration_leaves_nothing_behind(database):
    def interrupted():
        with database.transaction() as connection:
            connection.execute(sa.text("CREATE TABLE half (id INTEGER)"))
            connection.execute(sa.text("no such statement"))

    with pytest.raises(StorageFailed):
        interrupted()
    with database.transaction() as connection:
        assert sa.inspect(connection).get_table_names() == []
    database.upgrade()


def test_errors_name_the_reason_and_keep_values_to_themselves(database):
    with (
        pytest.raises(StorageFailed, match=r"^database: no such table: jobs$"),
        database.transaction() as connection,
    ):
        connection.execute(sa.text("SELECT * FROM jobs WHERE prompt = :p"), {"p": "secret"})


@pytest.mark.parametrize(
    "event",
    [
        Queued(3),
        Started(),
        ImageSkipped(2),
        Finished(timings={"total": 1.5}, has_nsfw_concepts=(False, True)),
        Failed(kind="internal", message="no", field="advanced.sampler"),
        Stopped(),
    ],
)
def test_events_read_back_as_they_were(event):
    assert event_from_json(event_to_json(event)) == event


def test_a_plan_that_cannot_be_read_fails_its_job_and_leaves_history_usable(studio):
    jobs = studio.open(gated=True, drain_s=0.2)
    done = jobs.submit(toy_plan("done"))
    studio.gate.release(10)
    assert jobs.wait(done, 15).state == "finished"
    while studio.gate.acquire(blocking=False):
        pass
    waiting = jobs.submit(toy_plan())
    jobs.close()
    with sqlite3.connect(studio.data_dir / "pochade.sqlite") as connection:
        connection.execute("""UPDATE jobs SET plan = '{"of": "another version"}'""")
    connection.close()
    jobs = studio.open()
    view = jobs.wait(waiting, 15)
    assert view.plan is None
    assert view.error == Failed(
        kind="internal", message="another version submitted this job; submit it again"
    )
    (image,) = jobs.history(owner="local")
    assert (image.prompt, image.plan) == ("done", None)


def test_a_job_ends_once_whatever_is_written_later(database):
    database.upgrade()
    store = Store(database)
    store.add_job(NewJob(id="j", owner="o", plan="", inputs={}, prompt=""), Entry(1, Queued()))
    assert store.end("j", Entry(2, Finished()))
    assert not store.end("j", Entry(3, Stopped()))
    store.start("j", Entry(3, Started()))
    store.give_back("j", Entry(3, Queued()), alone=True)
    with database.transaction() as connection:
        (row,) = connection.execute(sa.select(tables.jobs))
        assert (row.state, row.attempt, row.alone) == ("finished", 0, False)
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.events)) == 2
