"""GPUs are counted by their driver, or by a stand-in for it; without one there are none."""

import shutil
import subprocess

import pytest

from jobs.gpus import count_gpus

DRIVER = "int cuInit(unsigned flags) {{ return {failed}; }}\nint cuDeviceGetCount(int *count) {{ *count = 3; return 0; }}\n"


def test_no_driver_is_no_gpu(tmp_path):
    assert count_gpus("libnosuchdriver.so.1", tmp_path / "kfd") == 0


def test_gpus_of_amd_are_there_and_not_counted(tmp_path):
    (tmp_path / "kfd").touch()
    assert count_gpus("libnosuchdriver.so.1", tmp_path / "kfd") is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(("failed", "expected"), [(0, 3), (100, 0)])
def test_the_driver_is_asked(tmp_path, failed, expected):
    source, driver = tmp_path / "driver.c", tmp_path / "libdriver.so"
    source.write_text(DRIVER.format(failed=failed))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", driver, source], check=True)
    assert count_gpus(str(driver), tmp_path / "kfd") == expected
