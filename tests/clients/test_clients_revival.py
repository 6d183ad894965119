"""A request outlives its client and its server: whoever knows its id gets its result."""

import subprocess
import sys
import time

import fal_client
import pytest

from tests.clients.running import Node, Studio
from tests.clients.test_clients_python import TEXT, require_picture
from tests.test_app import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the client closes none
CLIENT = f"""
import fal_client
handle = fal_client.submit("{TEXT}", arguments={{"prompt": "star steps=60"}})
print(handle.request_id, flush=True)
handle.get()
"""


def submit_and_die(studio: Studio, program: str) -> str:
    """Be a client that is killed while it waits for its result; returns the id that it was told."""
    command = [sys.executable, "clients/local_fal.py", program]
    environment = {"FAL_LOCAL_URL": studio.address, "FAL_KEY": "key-id:key-secret"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        request_id = client.stdout.readline().decode().strip()
        client.kill()
    return request_id


def wait_until_running(request_id: str) -> None:
    deadline = time.monotonic() + 10
    while not isinstance(fal_client.status(TEXT, request_id), fal_client.InProgress):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_result_is_there_after_client_and_server_were_killed(
    own_studio: Studio, point, tmp_path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(CLIENT)
    own_studio.start()
    point(own_studio.address)
    request_id = submit_and_die(own_studio, str(program))
    wait_until_running(request_id)
    own_studio.kill()
    own_studio.start()
    require_picture(fal_client.SyncClient().get_handle(TEXT, request_id).get())
    own_studio.kill()
    own_studio.start()
    require_picture(fal_client.result(TEXT, request_id))


def test_the_javascript_clients_get_it_too(own_studio: Studio, node: Node) -> None:
    own_studio.start()
    asked = {"endpoint": TEXT, "input": {"prompt": "star"}}
    ids = {
        age: node.call(own_studio.address, age, "subscribe", **asked)["value"]["id"]
        for age in ("new", "old")
    }
    own_studio.kill()
    own_studio.start()
    new = node.call(own_studio.address, "new", "result", endpoint=TEXT, id=ids["new"])
    old = node.call(own_studio.address, "old", "result", endpoint=TEXT, id=ids["old"])
    require_picture(new["value"]["data"])
    require_picture(old["value"])


def test_a_studio_with_keys_knows_its_own(
    own_studio: Studio, point, node: Node, monkeypatch
) -> None:
    folder = ["--data-dir", str(own_studio.data_dir)]
    keys = [
        subprocess.run(
            [sys.executable, "app.py", "keys", *folder, "add", name],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
        for name in ("ann", "bob")
    ]
    own_studio.start()
    point(own_studio.address)
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        fal_client.run(TEXT, arguments={})
    assert caught.value.status_code == 401
    asked = {"endpoint": TEXT, "input": {}}
    error = node.call(own_studio.address, "new", "run", **asked)["error"]
    assert (error["is"], error["status"]) == (["ApiError"], 401)
    ann, bob = (fal_client.SyncClient(key=key) for key in keys)
    handle = ann.submit(TEXT, arguments={"prompt": "star"})
    require_picture(handle.get())
    with pytest.raises(fal_client.FalClientHTTPError) as caught:
        bob.get_handle(TEXT, handle.request_id).get()
    assert caught.value.status_code == 404
