"""Times single ops in deepseek and in PyTorch (MKL, oneDNN), beside what this machine does at best.

    ./dev bench-kernels                                     every set, all cores
    ./dev bench-kernels --sets gemm --threads 1 --isa avx2 --json out.json

Sets: gemm (squares, both operands arguments), linear (constant weights, packed before the run by whoever
can), conv and depthwise (channels last, constant kernels, packed likewise), attention (queries of whole
texts, and of one or a few words against what was kept of those before), memory (arrays that no cache
holds). Memory for results is given to everyone who takes it. The engines take turns as in models.py; a
peer's figure is the best of PyTorch's ways to run the op. The share is of this machine's roof: the rate of
fused multiply-adds, FLOPs counted as the direct algorithm does them (Winograd may pass 100%), or the rate
at which plain loops read and write the level of memory that holds the arrays. Of the memory set it is the
best stream's: loops that only copy or add arrays of these sizes, and take turns with the rest, since what
a shared machine's memory gives changes by the minute.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from turns import in_turns, keep, machine, prepare

if TYPE_CHECKING:
    import torch

SETS = ("gemm", "linear", "conv", "depthwise", "attention", "memory")
SQUARES = (128, 256, 512, 1024, 2048)
# Rows, columns and depth: heads and bodies of BERT, GPT-2, ResNet-50 and VGG-16.
LINEAR = (
    (1, 768, 768),
    (1, 3072, 768),
    (8, 768, 3072),
    (32, 1536, 384),
    (64, 2304, 768),
    (128, 768, 768),
    (128, 3072, 768),
    (128, 768, 3072),
    (197, 3072, 768),
    (1, 1000, 2048),
    (2, 768, 768),
    (3, 768, 768),
    (4, 768, 768),
    (1, 4096, 25088),
)
# Size, channels in and out, kernel, stride: layers of ResNet.
CONVS = (
    (224, 3, 64, 7, 2),
    (56, 64, 64, 3, 1),
    (56, 64, 256, 1, 1),
    (28, 128, 128, 3, 1),
    (28, 128, 512, 1, 1),
    (28, 256, 512, 1, 2),
    (14, 256, 256, 3, 1),
    (14, 256, 1024, 1, 1),
    (7, 512, 512, 3, 1),
    (7, 512, 2048, 1, 1),
)
DEPTHWISE = (
    (112, 32, 3, 1),
    (112, 96, 3, 2),
    (56, 144, 3, 1),
    (28, 240, 5, 1),
    (14, 576, 3, 1),
    (7, 960, 3, 1),
)
# Heads, queries, keys and the size of a head.
ATTENTION = (
    (12, 128, 128, 64),
    (12, 197, 197, 64),
    (12, 1024, 1024, 64),
    (8, 2048, 2048, 128),
    (12, 1, 1024, 64),
    (12, 4, 1024, 64),
    (32, 1, 4096, 128),
)
ROWS, COLUMNS = 8192, 4096  # 128 MiB of fp32


@dataclass
class Case:
    """One op on given arrays. `ours` builds the op in a graph whose inputs are `inputs`."""

    name: str
    inputs: list[torch.Tensor]
    ours: Callable[..., Any]
    peers: dict[str, Callable[[], torch.Tensor]]
    flops: float
    read: float  # bytes
    written: float
    streams: dict[str, Callable[[], Any]] = field(default_factory=dict)  # move as many bytes, do no more

    def least_seconds(self, roof: Any) -> float:
        """What this machine needs: FLOPs, or bytes out of the level of memory that holds all of them."""
        level = next(level for level in roof.levels if self.read + self.written <= level.capacity)
        return max(self.flops / roof.flops_per_s, self.read / level.read + self.written / level.write)


def gemms() -> Iterator[Case]:
    import torch

    linear: Any = torch.ops.mkldnn._linear_pointwise
    for n in SQUARES:
        a, b, out = (torch.randn(n, n) for _ in range(3))
        transposed = b.t().contiguous()
        peers = {
            "mkl": lambda a=a, b=b, out=out: torch.mm(a, b, out=out),
            "onednn": lambda a=a, b=transposed: linear(a, b, None, "none", [], ""),
        }
        yield Case(
            f"{n}x{n}x{n}",
            [a, b],
            lambda g, x, y: g.matmul(x, y),
            peers,
            2.0 * n**3,
            8.0 * n * n,
            4.0 * n * n,
        )


def linears() -> Iterator[Case]:
    import torch

    ops: Any = torch.ops.mkldnn
    for m, n, k in LINEAR:
        x, w, bias, out = torch.randn(m, k), torch.randn(n, k), torch.randn(n), torch.empty(m, n)
        packed = ops._reorder_linear_weight(w, m)
        transposed = w.t().contiguous()
        peers = {
            "mkl": lambda x=x, w=transposed, bias=bias, out=out: torch.addmm(bias, x, w, out=out),
            "mkl_transposed": lambda x=x, w=w, bias=bias: torch.nn.functional.linear(x, w, bias),
            "onednn_packed": lambda x=x, w=packed, b=bias: ops._linear_pointwise(x, w, b, "none", [], ""),
        }

        def ours(g: Any, x: Any, w: Any = transposed, bias: Any = bias) -> Any:
            return g.add(g.matmul(x, w.numpy()), bias.numpy())

        yield Case(f"{m}x{n}x{k}", [x], ours, peers, 2.0 * m * n * k, 4.0 * (m * k + n * k), 4.0 * m * n)


def convolution(size: int, c: int, f: int, kernel: int, stride: int, groups: int) -> Case:
    import torch

    ops: Any = torch.ops.mkldnn
    pad = kernel // 2
    x = torch.randn(1, c, size, size).to(memory_format=torch.channels_last)
    w = torch.randn(f, c // groups, kernel, kernel).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    packed = reorder(w.to_mkldnn(), [pad] * 2, [stride] * 2, [1] * 2, groups, list(x.shape))
    contiguous, weights = x.contiguous(), w.contiguous()
    functional = torch.nn.functional.conv2d
    peers = {
        "onednn": lambda: functional(contiguous, weights, None, stride, pad, 1, groups),
        "onednn_channels_last": lambda: functional(x, w, None, stride, pad, 1, groups),
        "onednn_packed": lambda: ops._convolution_pointwise(
            x, packed, None, [pad] * 2, [stride] * 2, [1] * 2, groups, "none", [], ""
        ),
    }
    filters = w.permute(2, 3, 1, 0).contiguous().numpy()

    def ours(g: Any, x: Any) -> Any:
        layouts = {"input_layout": "N01C", "kernel_layout": "01IO", "output_layout": "N01C"}
        padding = {"pad_low": [pad] * 2, "pad_high": [pad] * 2}
        return g.conv(x, filters, strides=[stride] * 2, feature_groups=groups, **padding, **layouts)

    out = (size + 2 * pad - kernel) // stride + 1
    flops = 2.0 * out * out * f * (c // groups) * kernel * kernel
    read = 4.0 * (size * size * c + w.numel())
    kind = f"{kernel}x{kernel}" + (f"/{stride}" if stride > 1 else "")
    name = f"{size}x{size}x{c}" + (f"->{f}" if groups == 1 else "") + f" {kind}"
    return Case(name, [x.permute(0, 2, 3, 1)], ours, peers, flops, read, 4.0 * out * out * f)


def attention(heads: int, queries: int, keys: int, size: int) -> Case:
    import torch

    q = torch.randn(heads, queries, size)
    k, v = (torch.randn(heads, keys, size) for _ in range(2))
    attend = torch.nn.functional.scaled_dot_product_attention

    def ours(g: Any, *inputs: Any) -> Any:
        whole = g.attention(*(g.reshape(x, shape=[1, *x.shape]) for x in inputs))
        return g.reshape(whole, shape=[heads, queries, size])

    def in_steps() -> torch.Tensor:
        return torch.bmm(torch.softmax(torch.bmm(q * size**-0.5, k.mT), -1), v)

    peers = {"torch": lambda: attend(q[None], k[None], v[None])[0], "torch_steps": in_steps}
    flops = 4.0 * heads * queries * keys * size
    read, written = 4.0 * heads * (queries + 2 * keys) * size, 4.0 * heads * queries * size
    return Case(f"{heads}x{queries}x{keys}x{size}", [q, k, v], ours, peers, flops, read, written)


def memory() -> Iterator[Case]:
    import torch

    aten: Any = torch.ops.aten
    x, y, out = (torch.randn(ROWS, COLUMNS) for _ in range(3))
    scale, bias = torch.randn(COLUMNS), torch.randn(COLUMNS)
    statistics = [torch.empty(ROWS, 1) for _ in range(2)]
    size = 4.0 * ROWS * COLUMNS

    def normalised() -> torch.Tensor:
        result: torch.Tensor = aten.native_layer_norm.out(
            x, [COLUMNS], scale, bias, 1e-5, out0=out, out1=statistics[0], out2=statistics[1]
        )[0]
        return result

    copies = {"copy": lambda: out.copy_(x), "negate": lambda: torch.neg(x, out=out)}
    torch_add: dict[str, Callable[[], torch.Tensor]] = {"torch": lambda: torch.add(x, y, out=out)}
    sums = torch_add | {"multiply": lambda: torch.mul(x, y, out=out)}
    yield Case("add", [x, y], lambda g, x, y: g.add(x, y), torch_add, 0, 2 * size, size, sums)
    torch_gelu = {"torch": lambda: aten.gelu.out(x, out=out)}
    yield Case("gelu", [x], lambda g, x: g.gelu(x), torch_gelu, 0, size, size, copies)
    torch_softmax = {"torch": lambda: aten._softmax.out(x, -1, False, out=out)}
    yield Case("softmax", [x], lambda g, x: g.softmax(x), torch_softmax, 0, size, size, copies)

    def layer_norm(g: Any, x: Any) -> Any:
        return g.layer_norm(x, scale.numpy(), bias.numpy())[0]

    yield Case("layer_norm", [x], layer_norm, {"torch": normalised}, 0, size, size, copies)


def cases(name: str) -> Iterator[Case]:
    if name == "gemm":
        yield from gemms()
    elif name == "linear":
        yield from linears()
    elif name == "conv":
        yield from (convolution(*shape, groups=1) for shape in CONVS)
    elif name == "depthwise":
        yield from (convolution(size, c, c, k, stride, c) for size, c, k, stride in DEPTHWISE)
    elif name == "attention":
        yield from (attention(*shape) for shape in ATTENTION)
    else:
        yield from memory()


def compiled(case: Case, threads: int) -> tuple[Callable[[], Any], torch.Tensor]:
    """Runs the case in deepseek; the memory that its result is written to."""
    import deepseek as ds
    import torch

    graph = ds.Graph()
    placeholders = [
        graph.placeholder(f"x{i}", shape=list(t.shape), dtype="float32") for i, t in enumerate(case.inputs)
    ]
    graph.output("y", case.ours(graph, *placeholders))
    executable = ds.compile(graph, threads=threads)
    context = ds.Context(executable)
    (port,) = executable.outputs.values()
    out = torch.empty([int(dim) for dim in port.shape])
    addresses, shapes = [t.data_ptr() for t in case.inputs], [list(t.shape) for t in case.inputs]
    results, result_shapes = [out.data_ptr()], [list(out.shape)]
    return lambda: context.run_pointers(addresses, shapes, results, result_shapes), out


def measure(kind: str, case: Case, args: argparse.Namespace, roof: Any) -> dict[str, Any]:
    run, out = compiled(case, args.threads)
    run()
    want = next(iter(case.peers.values()))()
    if want.dim() == 4:
        want = want.permute(0, 2, 3, 1)
    error = float((out - want).abs().max() / want.abs().max())
    times = in_turns({"deepseek": run, **case.peers, **case.streams}, args.rounds, args.burst)
    best = min(times[engine] for engine in case.peers)
    least = min((times[stream] for stream in case.streams), default=case.least_seconds(roof))
    figures = {
        "ms": {engine: seconds * 1e3 for engine, seconds in times.items()},
        "best_peer_over_ours": best / times["deepseek"],
        "gflops": case.flops / times["deepseek"] * 1e-9,
        "gbytes": (case.read + case.written) / times["deepseek"] * 1e-9,
        "share_of_roof": least / times["deepseek"],
        "peer_share_of_roof": least / best,
        "error": error,
    }
    rate = f"{figures['gflops']:7.1f} GFLOP/s" if case.flops else f"{figures['gbytes']:7.1f} GB/s   "
    print(
        f"{kind:10} {case.name:22} {times['deepseek'] * 1e3:9.3f} ms {rate} {least / times['deepseek']:6.0%} "
        f"of roof   best peer {best * 1e3:9.3f} ms {least / best:6.0%}   best peer / ours "
        f"{best / times['deepseek']:5.2f}   error {error:.0e}",
        flush=True,
    )
    return figures


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="*", choices=SETS, default=SETS)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--isa", choices=["native", "avx2"], default="native")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--burst", type=float, default=0.1, help="seconds per engine and round")
    parser.add_argument("--json", help="write the figures here")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    prepare(args.threads, args.isa)
    warnings.filterwarnings("ignore")
    import deepseek as ds
    import torch

    torch.set_num_threads(args.threads)
    roof = ds.measured_roof(args.threads, 256 if args.isa == "avx2" else 0)
    last = roof.levels[-1]
    print(
        f"{machine()}, {args.threads} thread(s), {args.isa}: {roof.flops_per_s * 1e-9:.0f} GFLOP/s, memory "
        f"{last.read * 1e-9:.1f} GB/s read, {last.write * 1e-9:.1f} GB/s written"
    )
    with torch.inference_mode():
        figures = {
            kind: {case.name: measure(kind, case, args, roof) for case in cases(kind)} for kind in args.sets
        }
    peak = {"gflops": roof.flops_per_s * 1e-9, "read": last.read * 1e-9, "written": last.write * 1e-9}
    keep(args, peak=peak, kernels=figures)


if __name__ == "__main__":
    main()
