"""What a training step saves comes from memory that the step before has left, and goes with the model."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Steps whose saved tensors, of 4 MB each, take 67 MB: where the system had given and cleared their pages
# anew, each step would fault in 4 KB of them at a time.
STEPS = """
import gc, resource, sys
import deepseek, torch

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

torch.set_num_threads(2)
layers = [torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh()) for _ in range(16)]
model = torch.nn.Sequential(*layers)
x = torch.randn(16384, 64)
run = torch.compile(model, backend="deepseek", options={"tune": "off"})

def step():
    model.zero_grad()
    run(x).sum().backward()

for _ in range(4):
    step()
before = faults()
for _ in range(4):
    step()
taken = (faults() - before) / 4
held = resident()
del run, model
torch._dynamo.reset()
gc.collect()
print(taken, held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts page faults")
def test_steps_use_the_pages_of_the_steps_before() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    faults, released = map(float, done.stdout.split())
    assert faults < 4000
    assert released > 30e6
