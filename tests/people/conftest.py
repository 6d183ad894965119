"""A house with people, on a queue of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import Jobs
from tests.people.house import House
from tests.ui.studios import open_jobs


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = open_jobs(tmp_path)
    yield jobs
    jobs.close()


@pytest.fixture
def house(tmp_path: Path, jobs: Jobs) -> House:
    return House(tmp_path / "data", jobs)
