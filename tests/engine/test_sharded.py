"""Two processes with shards make the run that one process makes with whole tensors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

HERE = Path(__file__)

pytestmark = pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")


def on_two_processes(name: str, tmp_path: Path) -> list[str]:
    """Runs a function of this file on two processes; returns what each printed."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    code = f"import sys; sys.path.insert(0, {str(HERE.parent)!r}); import {HERE.stem} as t; t.start(t.{name})"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    for process, (_, error) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, textwrap.indent(error[-3000:], "  ")
    return [out for out, _ in outputs]


def start(function):
    dist.init_process_group("gloo")
    function()
    dist.barrier()
    print("right", flush=True)
    os._exit(0)  # gloo's threads now and then abort an ordinary exit


SHAPES = [(6, 4), (7, 3), (5,), (1, 8), (3,)]  # the second is cut unevenly, the fourth leaves one without
EXTRAS = {
    "weight_decay": 0.02,
    "decay": 0.1,
    "clip_norm": 0.5,
    "clip_value": 0.3,
    "clip_adaptive": 0.05,
    "l1": 0.01,
    "ema": 0.9,
}


def whole(seed):
    torch.manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64) for shape in SHAPES]


def lay_out(tensors):
    """Sharded by rows, by columns, replicated on one mesh, cut twice on another, and plain."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    line, grid = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (1, 2))
    a, b, c, d, e = tensors
    return [
        distribute_tensor(a, line, [Shard(0)]),
        distribute_tensor(b, line, [Shard(0)]),
        distribute_tensor(c, line, [Replicate()]),
        distribute_tensor(d, grid, [Replicate(), Shard(1)]),
        e.clone(),
    ]


def gather(x):
    from torch.distributed.tensor import DTensor

    return x.full_tensor() if isinstance(x, DTensor) else x


def optimizers():
    """Every optimizer whose rule is elementwise, found automatically."""
    import stepwell as sw

    for name in sw.optim.__all__:
        kind = getattr(sw.optim, name)
        rules = getattr(kind, "rules", None)
        if rules and all(rule.elementwise for rule in rules) and name != "SparseAdam":
            yield name, kind


def taken_by(kind):
    """Those of the extras that this class does not refuse."""
    import stepwell as sw

    extras = {}
    for key, value in EXTRAS.items():
        try:
            kind([torch.zeros(2, 2, requires_grad=True)], **{key: value})
            extras[key] = value
        except sw.UserError:
            pass
    return extras


def same_as_one_process():
    for name, kind in optimizers():
        alone = [x.requires_grad_() for x in whole(0)]
        cut = [x.detach().requires_grad_() for x in lay_out(whole(0))]
        extras = taken_by(kind)
        one, two = kind(alone, **extras), kind(cut, **extras)
        for step in range(1, 22):
            for p, q, g, own in zip(alone, cut, whole(step), lay_out(whole(step)), strict=True):
                missing = step % 5 == 2 and p.dim() == 1
                p.grad, q.grad = (None, None) if missing else (g, own)
            one.step()
            two.step()
            torch.testing.assert_close(gather(two.gradient_norm), one.gradient_norm, rtol=1e-12, atol=0)
        for p, q in zip(alone, cut, strict=True):
            torch.testing.assert_close(gather(q.detach()), p.detach(), rtol=1e-11, atol=1e-12, msg=name)
            for key, value in one.state[p].items():
                torch.testing.assert_close(gather(two.state[q][key]), value, rtol=1e-11, atol=1e-12)
                assert two.state[q][key].shape == value.shape


def a_partial_gradient_is_summed():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor

    import stepwell as sw

    mesh = init_device_mesh("cpu", (2,))
    w = distribute_tensor(torch.ones(4, 2, dtype=torch.float64), mesh, [Shard(0)]).requires_grad_()
    local = torch.full((4, 2), 1.0 + dist.get_rank(), dtype=torch.float64)
    w.grad = DTensor.from_local(local, mesh, [Partial()]).redistribute(placements=[Shard(0)])
    sw.optim.SGD([w], lr=0.1).step()
    torch.testing.assert_close(gather(w.detach()), torch.full((4, 2), 0.7, dtype=torch.float64))


def whole_matrix_rules_say_so():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    import stepwell as sw

    mesh = init_device_mesh("cpu", (2,))
    kinds = [getattr(sw.optim, name) for name in sw.optim.__all__]
    kinds = [kind for kind in kinds if any(not rule.elementwise for rule in getattr(kind, "rules", ()))]
    for kind in kinds:
        for placement, right in ((Shard(0), False), (Replicate(), True)):
            w = distribute_tensor(torch.randn(4, 4), mesh, [placement]).requires_grad_()
            w.grad = distribute_tensor(torch.ones(4, 4), mesh, [placement])
            try:
                kind([w]).step()
                assert right, kind
            except sw.UserError as error:
                assert not right and "whole tensors" in str(error), error


def fsdp_trains_like_one_process():
    from torch import nn
    from torch.distributed.fsdp import fully_shard

    import stepwell as sw

    def model():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()

    torch.manual_seed(1)
    xs = torch.randn(20, 8, 5, dtype=torch.float64)
    alone, cut = model(), model()
    from torch.distributed.device_mesh import init_device_mesh

    fully_shard(cut, mesh=init_device_mesh("cpu", (2,)))
    one = sw.optim.AdamW(alone.parameters(), lr=0.01, clip_norm=0.1, ema=0.9)
    two = sw.optim.AdamW(cut.parameters(), lr=0.01, clip_norm=0.1, ema=0.9)
    for x in xs:
        for net, optimizer, part in ((alone, one, x), (cut, two, x.chunk(2)[dist.get_rank()])):
            optimizer.zero_grad()
            net(part).square().mean().backward()
            optimizer.step()
    for p, q in zip(alone.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(gather(q.detach()), p.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "same_as_one_process",
        "a_partial_gradient_is_summed",
        "whole_matrix_rules_say_so",
        "fsdp_trains_like_one_process",
    ],
)
def test_on_two_processes(name, tmp_path):
    """Weights, state, averages and norms are those of one process; what cannot be cut says so."""
    assert all(out.strip().endswith("right") for out in on_two_processes(name, tmp_path))
