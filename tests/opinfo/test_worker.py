"""The processes that samples run in."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.worker import Worker


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(
        "import sys\n"
        "for line in sys.stdin:\n"
        "    if line == 'end\\n': sys.exit(3)\n"
        '    sys.stdout.write(\'{"line": 1}\\n{"line": 2}\\n\')\n'
        "    sys.stdout.flush()\n"
    )
    return path


def test_lines_that_come_together_are_read_one_by_one(script: Path) -> None:
    worker = Worker(script, seconds=20)
    worker.send("both")
    assert [worker.read(), worker.read()] == [{"line": 1}, {"line": 2}]
    worker.close()


def test_silence_and_an_end_are_told_apart_and_a_new_process_follows(script: Path) -> None:
    worker = Worker(script, seconds=20)
    worker.send("both")
    worker.read()
    worker.read()
    worker.seconds = 0.1
    with pytest.raises(TimeoutError, match="no result within"):
        worker.read()
    worker.seconds = 20
    worker.send("end")
    with pytest.raises(BrokenPipeError, match="status 3"):
        worker.read()
    worker.kill()
    worker.send("both")
    assert worker.read() == {"line": 1}
    worker.close()
