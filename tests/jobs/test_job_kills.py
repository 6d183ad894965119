"""Nothing is lost, done twice or left in pieces when the server or its worker is killed at any moment.

``POCHADE_KILL_ROUNDS=25`` runs more rounds; ``python -m tests.jobs.kill_rounds`` shows the counts.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.kill_rounds import kill_round, snapshot_round

ROUNDS = int(os.environ.get("POCHADE_KILL_ROUNDS", "1"))
FAULTS = ("lost", "twice", "torn", "foreign", "broken", "orphan files", "orphan processes")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("number", range(ROUNDS))
def test_kills_lose_nothing_and_repeat_nothing(tmp_path, number):
    found = kill_round(tmp_path, 20, random.Random())
    assert found["kills"] > 0
    assert found["jobs"] == 20
    assert not {fault: found[fault] for fault in FAULTS if found[fault]}


def test_a_power_cut_at_any_moment_leaves_whole_files_and_a_sound_database(tmp_path):
    found = snapshot_round(tmp_path, 4 * ROUNDS, random.Random())
    assert not {fault: found[fault] for fault in FAULTS if found[fault]}


@pytest.mark.parametrize("options", [[], ["--without-links"]])
def test_a_server_that_dies_before_any_of_its_acts_is_mended_by_the_next(options):
    command = [sys.executable, "-m", "tests.jobs.deaths", *options]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    found = dict(item.split("=") for item in ended.stdout.split())
    assert int(found["deaths"]) > 10
    assert {found.get(fault.replace(" ", "_"), "0") for fault in FAULTS} == {"0"}
