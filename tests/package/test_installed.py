"""What a user gets: the installed C++ package, used by a project outside the tree, and the wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import deepseek as ds
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_WHEEL_BYTES = 40 << 20


def call(*command: str | Path, **more: object) -> str:
    run = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,  # type: ignore[call-overload]
    )
    assert run.returncode == 0, run.stdout
    return str(run.stdout)


def test_cpp_project_outside_the_tree(tmp_path: Path) -> None:
    prefix, source, build = tmp_path / "prefix", tmp_path / "source", tmp_path / "build"
    call("cmake", "--install", ROOT / "build/release", "--prefix", prefix)
    source.mkdir()
    for name in ("CMakeLists.txt", "main.cc"):
        (source / name).write_text((ROOT / "examples/cpp" / name).read_text())
    call("cmake", "-G", "Ninja", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    call("cmake", "--build", build)
    lines = call(build / "two_layers").splitlines()
    # relu([1, 1] w) w with w = [[1, -1], [2, 0.5]]
    assert lines[0] == "y[1, 2]: 3 -3"
    assert lines[1] == "y[3, 2]: 3 -3 3 -3 3 -3"
    assert "matmul" in lines[2]


def test_runner_needs_the_runtime_alone(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    call("cmake", "--install", ROOT / "build/release", "--prefix", prefix)
    [compiler] = prefix.rglob("libdeepseek.so")
    compiler.unlink()
    graph = ds.Graph()
    graph.relu(graph.placeholder("x", ["n"]), name="y")
    ds.compile(graph).save(tmp_path / "model.dsx")
    np.save(tmp_path / "x.npy", np.array([-1, 2], "float32"))
    call(prefix / "bin/deepseek-run", tmp_path / "model.dsx", f"x={tmp_path / 'x.npy'}", "--out", tmp_path)
    assert np.load(tmp_path / "y.npy").tolist() == [0, 2]


def needed_libraries(library: Path) -> list[str]:
    lines = call("readelf", "-d", library).splitlines()
    return [line.split("[")[1].rstrip("]") for line in lines if "(NEEDED)" in line]


def test_libraries_bring_what_they_need(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    call("cmake", "--install", ROOT / "build/release", "--prefix", prefix)
    [runtime] = prefix.rglob("libdeepseek_runtime.so")
    [compiler] = prefix.rglob("libdeepseek.so")
    system = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"}
    assert set(needed_libraries(runtime)) <= system
    ours = {"libdeepseek_runtime.so", "libprotobuf-lite.so.32", "libz.so.1"}
    assert set(needed_libraries(compiler)) <= system | ours
    names = call("nm", "-D", "--defined-only", "--format=just-symbols", compiler).split()
    assert names
    assert not [name for name in names if "8deepseek" not in name]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # The same paths as in the release build, so that ccache knows the objects.
    environment = os.environ | {"CCACHE_BASEDIR": str(ROOT), "CCACHE_NOHASHDIR": "1"}
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation")
    call(*pip, "-w", folder, ROOT, env=environment)
    [found] = folder.glob("*.whl")
    return found


def test_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("deepseek/__init__.py", "deepseek/_core.pyi", "deepseek/include/deepseek/deepseek.h"):
        assert wanted in names
    assert any(name.startswith("deepseek/lib/libprotobuf-lite") for name in names)
    assert not [name for name in names if name.startswith(("tests", "src"))]


def test_wheel_runs_by_itself(wheel: Path, tmp_path: Path) -> None:
    """Unpacked into an empty folder: nothing of this tree is on the path, and no compiler is found.

    -S: without the hook of the development environment, which would find the tree first.
    """
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = """
import numpy as np, deepseek as ds, sys
graph = ds.Graph()
x = graph.placeholder("x", shape=["n"], dtype="float32")
graph.relu(x, name="y")
print(ds.compile(graph, target="cpu").run({"x": np.array([-1, 2], np.float32)})["y"], ds.__file__)
assert "torch" not in sys.modules
"""
    site = Path(np_folder()).parent
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{site}", "PATH": "/nonexistent"}
    out = call(sys.executable, "-S", "-c", code, cwd=tmp_path, env=environment)
    assert out.startswith("[0. 2.]")
    assert str(tmp_path) in out


def np_folder() -> str:
    import numpy

    return str(Path(numpy.__file__).parent)
