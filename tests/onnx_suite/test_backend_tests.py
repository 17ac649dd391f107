"""ONNX's tests against the list of known failures: a listed test that passes is a failure as well."""

import importlib.util
import sys
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("onnx_suite", Path(__file__).with_name("suite.py"))
assert spec is not None
assert spec.loader is not None
suite = importlib.util.module_from_spec(spec)
sys.modules["onnx_suite"] = suite
spec.loader.exec_module(suite)

ALL = suite.names()
KNOWN = suite.known_failures()


@pytest.fixture(scope="module")
def results(whole_suites: bool) -> "dict[str, suite.Result]":
    found = suite.run_all(ALL if whole_suites else suite.fixed_part(ALL))
    print(suite.summary(found))
    return found


def test_known_failures_are_tests_with_reasons() -> None:
    assert not [name for name in KNOWN if name not in ALL]
    assert not [name for name, reason in KNOWN.items() if not reason]


def test_no_crash_and_no_hang(results: "dict[str, suite.Result]") -> None:
    assert not {name: r.message for name, r in results.items() if r.status in ("crash", "timeout")}


def test_what_fails_is_known(results: "dict[str, suite.Result]") -> None:
    assert not {name: r.message for name, r in results.items() if not r.passed and name not in KNOWN}


def test_what_is_known_fails(results: "dict[str, suite.Result]") -> None:
    assert not [name for name, r in results.items() if r.passed and name in KNOWN]


def test_rate(results: "dict[str, suite.Result]", capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print("\n" + suite.summary(results))
    nodes = suite.node_tests(results)
    assert sum(r.passed for r in nodes.values()) >= suite.RATE_GATE * len(nodes)
