"""What the tuning sets is the process's own, so each look is taken in a process of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def look(expression: str, before: str = "") -> str:
    probe = f"{before}\nimport gc, resource, sys\nfrom cli.tuning import tune\ntune()\nprint({expression})"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_collector_stays_on_but_comes_seldom() -> None:
    assert look("gc.isenabled(), gc.get_freeze_count() > 0, gc.get_threshold()[0]") == "True True 50000"


def test_threads_hand_over_quickly() -> None:
    assert look("sys.getswitchinterval() < 0.001") == "True"


def test_the_limit_of_open_files_goes_up_and_never_down() -> None:
    low = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, r.getrlimit(r.RLIMIT_NOFILE)[1]))"
    assert int(look("resource.getrlimit(resource.RLIMIT_NOFILE)[0]", low)) > 64
    capped = "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 128))"
    assert look("*resource.getrlimit(resource.RLIMIT_NOFILE)", capped) == "128 128"


def test_twice_is_no_different() -> None:
    assert look("tune()") == "None"
