"""Writes the README's table and picture from figures that `./dev bench --json` left in bench/results.

./dev python bench/table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

plt.rcParams["svg.hashsalt"] = "deepseek"  # the same figures give the same file

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
PEERS = {
    "eager": "PyTorch eager",
    "inductor": "Inductor",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
}
OURS = ("deepseek_torch", "deepseek_onnx")
NAMES = {
    "resnet50": "ResNet-50",
    "resnet50_b8": "ResNet-50, batch 8",
    "resnet18": "ResNet-18",
    "vgg16": "VGG-16",
    "efficientnet_b0": "EfficientNet-B0",
    "mobilenet_v2": "MobileNetV2",
    "bert": "BERT-base, 128 tokens",
    "minilm": "MiniLM, 32 tokens",
    "vit_b_16": "ViT-B/16",
    "gpt2_prefill": "GPT-2 prefill, 64 tokens",
}


def milliseconds(figures: dict[str, Any], engine: str) -> float | None:
    """The engine's time; eager counts in the better of its two memory formats.

    None where it did not run, or with instructions that the run was meant to do without.
    """
    names = ("eager", "eager_channels_last") if engine == "eager" else (engine,)
    counted = [figures[name] for name in names if name in figures and figures[name].get("capped", True)]
    return min((row["ms"] for row in counted), default=None)


def ours(figures: dict[str, Any]) -> float:
    return min(figures[engine]["ms"] for engine in OURS if engine in figures)


def table(report: dict[str, Any]) -> str:
    threads, isa = report["threads"], report["isa"]
    lines = [
        f"Milliseconds, fp32, {threads} thread{'s' if threads > 1 else ''}, {isa} instruction set, "
        f"{report['machine']}; one run, engines taking turns (ours: the better of its doors):",
        "",
        "| model | DeepSeek | " + " | ".join(PEERS.values()) + " | best peer / ours |",
        "| --- |" + " ---: |" * (len(PEERS) + 2),
    ]
    for model, figures in report["models"].items():
        peers = [milliseconds(figures, engine) for engine in PEERS]
        best = min(ms for ms in peers if ms is not None)
        cells = ["-" if ms is None else f"{ms:.1f}" for ms in peers]
        mine = ours(figures)
        lines.append(f"| {NAMES.get(model, model)} | {mine:.1f} | {' | '.join(cells)} | {best / mine:.2f} |")
    return "\n".join(lines)


def ratios(reports: list[dict[str, Any]]) -> str:
    """Best peer's time over ours, a column per run: threads and instruction set."""
    models = list(dict.fromkeys(model for report in reports for model in report["models"]))
    names = [f"{r['threads']} thread{'s' if r['threads'] > 1 else ''}, {r['isa']}" for r in reports]
    lines = [
        "Best peer's time / ours in each run kept there, whose file says which peers ran (MLAS cannot be "
        "capped at AVX2: ONNX Runtime does not count there, nor OpenVINO on transformers, whose products "
        "it runs in MLAS):",
        "",
        "| model | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(reports),
    ]
    for model in models:
        cells = []
        for report in reports:
            figures = report["models"].get(model, {})
            best = min((ms for p in PEERS if (ms := milliseconds(figures, p)) is not None), default=None)
            cells.append("-" if best is None else f"{best / ours(figures):.2f}")
        lines.append(f"| {NAMES.get(model, model)} | {' | '.join(cells)} |")
    return "\n".join(lines)


KERNEL_SETS = {
    "gemm": "matrix products, squares",
    "linear": "products with constant weights",
    "conv": "convolutions of ResNet",
    "depthwise": "depthwise convolutions",
    "memory": "add, GELU, softmax, layer norm in memory",
}


def kernel_ratios(reports: list[dict[str, Any]]) -> str:
    """Best peer's time over ours by set of kernels, with our share of the machine's roof: geometric means."""
    if not reports:
        return ""
    reports = sorted(reports, key=lambda r: (r["isa"] != "native", -r["threads"]))
    names = [f"{r['threads']} thread{'s' if r['threads'] > 1 else ''}, {r['isa']}" for r in reports]
    lines = [
        "Single ops (`./dev bench-kernels`): time of PyTorch's best way (MKL, oneDNN) / ours, and our share "
        "of what this machine does at best, geometric means (Winograd does fewer FLOPs than are counted):",
        "",
        "| kernels | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(reports),
    ]
    for kind, title in KERNEL_SETS.items():
        cells = []
        for report in reports:
            rows = report["kernels"].get(kind, {}).values()
            ratio = geometric_mean(row["best_peer_over_ours"] for row in rows) if rows else 0
            share = geometric_mean(row["share_of_roof"] for row in rows) if rows else 0
            cells.append(f"{ratio:.2f} ({share:.0%})" if rows else "-")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def picture(report: dict[str, Any], path: Path) -> None:
    """Bars of speed relative to the best peer; 1 is that peer."""
    models = list(report["models"])
    figure, axes = plt.subplots(figsize=(1.2 * len(models) + 1.5, 3.2))
    engines = ["ours", *PEERS]
    width = 0.8 / len(engines)
    for k, engine in enumerate(engines):
        heights = []
        for model in models:
            figures = report["models"][model]
            best = min(ms for peer in PEERS if (ms := milliseconds(figures, peer)) is not None)
            mine = ours(figures) if engine == "ours" else milliseconds(figures, engine)
            heights.append(best / mine if mine else 0.0)
        label = "DeepSeek" if engine == "ours" else PEERS[engine]
        axes.bar([i + k * width for i in range(len(models))], heights, width, label=label)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(
        [i + 0.4 - width / 2 for i in range(len(models))], [NAMES.get(m, m) for m in models], fontsize=7
    )
    axes.set_ylabel("speed, best peer = 1")
    axes.legend(fontsize=7, ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.15), frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    results = sorted((ROOT / "bench" / "results").glob("*.json"))
    everything = [json.loads(path.read_text()) for path in results]
    reports = [report for report in everything if "models" in report]
    kernels = [report for report in everything if "kernels" in report]
    reports.sort(key=lambda r: (r["isa"] != "native", -r["threads"]))
    native = [report for report in reports if report["isa"] == "native"]
    report = max(native, key=lambda r: r["threads"])
    readme = ROOT / "README.md"
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    command = f"./dev bench --threads {report['threads']} --models {' '.join(report['models'])}"
    body = (
        f"{table(report)}\n\nMade by `{command}`; kept in "
        f"[bench/results](bench/results).\n\n{ratios(reports)}\n\n{kernel_ratios(kernels)}"
        "![Speed relative to the best peer](docs/images/speed.svg)"
    )
    readme.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}")
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    picture(report, images / "speed.svg")


if __name__ == "__main__":
    main()
