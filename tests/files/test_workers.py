"""A pool of worker processes leaves none behind, and nobody waiting, however it ends."""

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def begins_a_result(begun: str) -> None:
    """What a worker does that is ended while it sends: the length of a result, and a part of it."""
    frame = sys._getframe()
    while "result_queue" not in frame.f_locals:
        assert frame.f_back is not None
        frame = frame.f_back
    os.write(frame.f_locals["result_queue"]._writer.fileno(), struct.pack("!i", 10_000) + b"half")
    Path(begun).touch()
    time.sleep(600)


def test_a_worker_that_is_ended_in_the_middle_of_a_result_leaves_nobody_waiting(tmp_path: Path) -> None:
    """The pool's own thread waited for the other half, and the process for its thread, for ever."""
    begun = str(tmp_path / "begun")
    code = (
        "import time; from pathlib import Path\n"
        "from tests.files.test_workers import begins_a_result\n"
        "from weightspace.files.workers import processes\n"
        "if __name__ == '__main__':\n"
        "    with processes(1) as (pool, stop):\n"
        f"        pool.submit(begins_a_result, {begun!r})\n"
        f"        while not Path({begun!r}).exists(): time.sleep(0.02)\n"
        "        time.sleep(0.3)  # the thread reads the first half\n"
        "        stop()\n"
    )
    (tmp_path / "run.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, tmp_path / "run.py"], env=environment, timeout=60, check=False)
    assert done.returncode == 0
