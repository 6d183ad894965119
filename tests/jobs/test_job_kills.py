"""Nothing is lost, done twice or left in pieces when the server or its worker is killed at any moment.

``POCHADE_KILL_ROUNDS=25`` runs more rounds; ``python -m tests.jobs.kill_rounds`` shows the counts.
"""

import os
import random
import sys

import pytest

from tests.jobs.kill_rounds import kill_round, snapshot_round

ROUNDS = int(os.environ.get("POCHADE_KILL_ROUNDS", "1"))
FAULTS = ("lost", "twice", "torn", "broken", "orphan files", "orphan processes")

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
