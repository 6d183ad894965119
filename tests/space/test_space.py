"""What a studio reads from the environment of a Space, and where it then keeps what."""

from pathlib import Path

import pytest

from settings import read_settings
from space import find_space, is_kept, keep_caches, usual_folder


@pytest.mark.parametrize("more", [{}, {"SPACE_ID": ""}])
def test_nothing_is_a_space_without_an_id(more) -> None:
    environment = {"SYSTEM": "spaces", "SPACE_HOST": "x-y.hf.space", **more}
    assert find_space(environment) is None
    assert read_settings([], environment).host == "127.0.0.1"


def test_a_space_is_read_from_its_variables() -> None:
    found = find_space(
        {
            "SPACE_ID": "ann/studio",
            "SPACE_HOST": "ann-studio.hf.space,studio.example",
            "SPACE_AUTHOR_NAME": "ann",
            "ACCELERATOR": "a10g-small",
            "OAUTH_CLIENT_ID": "id",
            "OAUTH_CLIENT_SECRET": "secret",
            "OAUTH_SCOPES": "openid profile email",
            "OPENID_PROVIDER_URL": "https://hub.example",
        }
    )
    assert found is not None
    assert (found.id, found.host, found.author) == ("ann/studio", "ann-studio.hf.space", "ann")
    assert found.hosts == ("ann-studio.hf.space", "studio.example")
    assert (found.hardware, found.is_zero_gpu) == ("a10g-small", False)
    assert found.sign_in is not None
    assert found.sign_in.provider == "https://hub.example"


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_zero_gpu_is_read_as_the_package_spaces_reads_it(value) -> None:
    found = find_space({"SPACE_ID": "x/y", "SPACES_ZERO_GPU": value, "ACCELERATOR": "none"})
    assert found is not None
    assert (found.is_zero_gpu, found.hardware, found.author) == (True, "ZeroGPU", "x")
    assert found.sign_in is None


def test_folders_lie_in_the_bucket_or_below_the_home(tmp_path: Path) -> None:
    space = {"SPACE_ID": "x/y", "HOME": "/home/user"}
    bucket = tmp_path / "data"
    assert usual_folder(space, "outputs", bucket) == "/home/user/pochade/outputs"
    assert usual_folder({}, "outputs", bucket) == "outputs"
    bucket.mkdir()
    assert usual_folder(space, "data", bucket) == str(bucket / "pochade" / "data")
    assert is_kept(bucket / "pochade" / "outputs", bucket)
    assert not is_kept(tmp_path / "outputs", bucket)


def test_flags_and_their_variables_go_before_the_space() -> None:
    space = {"SPACE_ID": "x/y", "HOME": "/home/user", "GRADIO_SERVER_PORT": "7861"}
    settings = read_settings([], space)
    assert (settings.host, settings.port) == ("0.0.0.0", 7861)
    assert settings.data_dir == Path("/home/user/pochade/data")
    told = read_settings(["--port", "9"], {**space, "POCHADE_OUTPUT_DIR": "/mnt/pictures"})
    assert (told.port, told.output_dir) == (9, Path("/mnt/pictures"))
    assert read_settings([], {"GRADIO_SERVER_PORT": "7861"}).port == 7860


def test_programs_are_sent_to_the_https_address_of_the_space() -> None:
    space = {"SPACE_ID": "x/y", "SPACE_HOST": "x-y.hf.space, studio.example", "HOME": "/home/user"}
    assert read_settings([], space).public_url == "https://x-y.hf.space"
    assert (
        read_settings(["--public-url", "https://me.example"], space).public_url
        == "https://me.example"
    )
    assert read_settings([], {"SPACE_ID": "x/y", "HOME": "/home/user"}).public_url is None
    assert read_settings([], {}).public_url is None


def test_libraries_keep_their_files_in_the_data_folder(tmp_path: Path) -> None:
    environment = {"MPLCONFIGDIR": "/elsewhere"}
    keep_caches(environment, tmp_path)
    assert environment["GRADIO_TEMP_DIR"] == str(tmp_path / "cache" / "gradio")
    assert environment["MPLCONFIGDIR"] == "/elsewhere"
