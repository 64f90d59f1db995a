"""Stepwell's optimizer and schedule in a loop of your own.

python examples/own_loop.py
"""

import torch
from torch import nn

import stepwell as sw

STEPS = 500


def main() -> None:
    """Fits sin(3x) and prints the last loss."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = sw.optim.Adam(model.parameters(), lr=3e-2, decay=1e-3)
    rate = sw.schedules.warm_up(sw.schedules.cosine(3e-2, STEPS - 20), 20)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = rate(step)
        x = torch.rand(64, 1) * 2 - 1
        loss = nn.functional.mse_loss(model(x), torch.sin(3 * x))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"loss {loss.item():.2g}, gradient norm {optimizer.gradient_norm:.2g}")


if __name__ == "__main__":
    main()
