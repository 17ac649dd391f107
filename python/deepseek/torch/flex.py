"""torch.nn.attention.flex_attention, whose scores are changed and masked by graphs within the graph: PyTorch
calls these for all positions at once (vmap).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.flex_attention import math_attention

from deepseek.torch.recurrent import STEPS


def flex_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
    return math_attention(*args, **kwargs)


STEPS[torch.ops.higher_order.flex_attention] = flex_attention
