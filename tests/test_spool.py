import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secretweave.errors import SecretweaveError
from secretweave.reading.spool import FRAME, Spool
from tests.sizes import examples


@given(
    st.lists(st.integers(0, FRAME + FRAME // 3), max_size=8),
    st.sampled_from([0, 1000, FRAME, 3 * FRAME, 1 << 30]),
    st.data(),
)
@examples(40)
def test_every_range_comes_back(sizes: list[int], memory: int, data: st.DataObject) -> None:
    whole = b""
    with Spool(memory=memory) as spool:
        for number, size in enumerate(sizes):
            part = bytes([number + 1]) * size
            assert spool.append(part) == len(whole)
            whole += part
        assert spool.size == len(whole)
        for _ in range(4):
            start = data.draw(st.integers(0, len(whole)))
            end = data.draw(st.integers(start, len(whole)))
            assert spool.read(start, end) == whole[start:end]
        assert spool.read(0, len(whole)) == whole


def test_what_spills_is_sealed_and_has_no_name(tmp_path: Path) -> None:
    marker = b"a literal secret in a rendered chart"
    with Spool(memory=0, folder=str(tmp_path)) as spool:
        spool.append(marker * (3 * FRAME // len(marker)))
        assert list(tmp_path.iterdir()) == []
        files = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
        spilled = [path for path in files if os.path.exists(path) and str(tmp_path) in os.readlink(path)]
        assert len(spilled) == 1
        content = Path(spilled[0]).read_bytes()
        assert len(content) > FRAME
        assert marker not in content


def test_without_a_writable_folder_the_kernel_keeps_it(tmp_path: Path) -> None:
    with Spool(memory=0, folder=str(tmp_path / "none")) as spool:
        spool.append(b"x" * 3 * FRAME)
        assert spool.read(FRAME - 1, FRAME + 1) == b"xx"


def test_a_full_disk_is_an_error_with_a_fix() -> None:
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from secretweave.reading.spool import Spool\n"
        "from secretweave.errors import SecretweaveError\n"
        "try:\n    Spool(memory=0).append(bytes(3 << 20))\n"
        "except SecretweaveError as error:\n    print(error.fix)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "limits.spoolFolder" in done.stdout


def test_a_frame_that_was_tampered_with_is_not_given_out(tmp_path: Path) -> None:
    with Spool(memory=0, folder=str(tmp_path)) as spool:
        spool.append(b"x" * 2 * FRAME)
        os.pwrite(spool._file, b"y", 10)  # noqa: SLF001 - what another program would do to the file
        with pytest.raises(SecretweaveError):
            spool.read(0, 1)
