"""Time and randomness go through `pmkit.clock` only, and the lint that says so sees every spelling."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lint.clock_lint import check_source, check_tree, main

ROOT = Path(__file__).resolve().parent.parent

BAD = {
    "import": "import time",
    "import in a function": "def f():\n    import random",
    "alias of a module": "import time as t\nt.sleep(1)",
    "from import": "from time import sleep",
    "perf counter": "import time\ntime.perf_counter_ns()",
    "secrets": "import secrets\nsecrets.token_hex()",
    "submodule": "import numpy.random",
    "through a parent": "import numpy as np\nnp.random.rand()",
    "from parent": "from numpy import random as chance",
    "datetime class": "from datetime import datetime\ndatetime.now()",
    "datetime with a zone": "from datetime import UTC, datetime\ndatetime.now(UTC)",
    "datetime module": "import datetime as dt\ndt.datetime.utcnow()",
    "datetime alias": "from datetime import datetime as D\nD.today()",
    "date": "from datetime import date\ndate.today()",
    "as a default factory": "from datetime import datetime\nfield(default_factory=datetime.now)",
    "unknown receiver": "moment.utcnow()",
    "asyncio.sleep": "import asyncio\nasync def f():\n    await asyncio.sleep(0)",
    "asyncio alias": "import asyncio as aio\naio.wait_for(x, 1)",
    "asyncio from": "from asyncio import timeout\ntimeout(1)",
    "asyncio from alias": "from asyncio import timeout_at as until\nuntil(1)",
    "asyncio inner module": "import asyncio.tasks\nasyncio.tasks.sleep(1)",
    "asyncio inner from": "from asyncio.timeouts import timeout",
    "bound to a name": "import asyncio\nnap = asyncio.sleep",
    "used by that name": "import asyncio\nwait = asyncio\nwait.sleep(1)",
    "star": "from asyncio import *",
    "getattr": "import asyncio\ngetattr(asyncio, 'sleep')(1)",
    "import_module": "import importlib\nimportlib.import_module('random')",
    "dunder import": "__import__('time').sleep(1)",
    "loop time": "import asyncio\nasyncio.get_running_loop().time()",
    "loop by name": "loop.call_later(1, f)",
    "loop attribute": "self._loop.call_at(1, f)",
    "loop under another name": "import asyncio\nrunning = asyncio.get_event_loop()\nrunning.call_later(1, f)",
    "loop in an attribute": "import asyncio\nself.runner = asyncio.get_running_loop()\nself.runner.time()",
    "loop by annotation": "def f(runner: asyncio.AbstractEventLoop):\n    runner.time()",
    "loop of a task": "task.get_loop().call_later(1, f)",
    "loop method kept": "now = loop.time",
    "loop getattr": "getattr(loop, 'call_later')(1, f)",
    "uuid": "import uuid\nuuid.uuid4()",
    "uuid from": "from uuid import uuid1 as one",
    "urandom": "import os\nos.urandom(16)",
    "timer thread": "import threading\nthreading.Timer(1, f)",
}

GOOD = {
    "clock": "clock.now()\nclock.call_later(1, f)\nself.clock.time_ns()\nself._clock.sleep(1)",
    "datetime values": "from datetime import UTC, datetime, time, timedelta\ndatetime(2026, 1, 1, tzinfo=UTC)\ntime(1)",
    "own names": "def f(timeout, time, random):\n    return timeout + time + random",
    "own attributes": "message.time\nself.timeout\nfill.now\nself.random()",
    "asyncio rest": "import asyncio\nasyncio.create_task(f())\nasyncio.wait(tasks)",
    "loop rest": "import asyncio\nasyncio.get_running_loop().create_future()\nloop.call_soon(f)",
    "uuid values": "import uuid\nuuid.UUID(text)\nuuid.uuid5(a, b)",
    "in a text": '"time.sleep(1)"',
    "relative import": "from . import time\nfrom .random import x",
    "os": "import os\nos.write(1, b'')",
}


@pytest.mark.parametrize("case", BAD)
def test_bad_samples_are_found(case: str) -> None:
    found = check_source(BAD[case])
    assert found, f"the lint does not see: {BAD[case]!r}"
    assert found[-1].line == len(BAD[case].splitlines())


@pytest.mark.parametrize("case", GOOD)
def test_good_samples_are_quiet(case: str) -> None:
    assert check_source(GOOD[case]) == []


def test_only_the_clock_tells_time() -> None:
    count, found = check_tree([ROOT / "pmkit", ROOT / "examples"])
    assert count >= 3
    assert not found, "\n".join(map(str, found))


def test_the_clock_itself_is_what_the_lint_looks_for() -> None:
    source = (ROOT / "pmkit" / "clock.py").read_text(encoding="utf-8")
    assert {"import time", "import random", "asyncio.sleep"} <= {
        finding.message.partition(":")[0] for finding in check_source(source)
    }


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2, "nothing to read must not pass"
    assert main([str(tmp_path / "absent")]) == 2
    (tmp_path / "good.py").write_text("x = 1\n")
    assert main([str(tmp_path)]) == 0
    (tmp_path / "bad.py").write_text("import time\n")
    capsys.readouterr()
    run = subprocess.run(
        [sys.executable, "-m", "tests.lint.clock_lint", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert "bad.py:1:1: import time" in run.stdout
