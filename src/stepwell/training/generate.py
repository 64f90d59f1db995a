"""Text from a trained network, a character at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.dataset import DataSet, Part
from stepwell.data.text import decode
from stepwell.nn.network import Network

SAMPLES, SAMPLE_LENGTH = 3, 400  # written for the report at the end of a run


@torch.no_grad()
def generate(
    network: Network, tokens: Tensor, context: int, length: int, temperature: float, seed: int
) -> Tensor:
    """Appends `length` characters to each row of tokens (B, n), drawn from softmax(z / temperature).

    Each character sees the `context` characters before it. temperature 0 takes the likeliest one.
    """
    device = tokens.device
    generator = torch.Generator(device).manual_seed(seed)
    was_training = network.training
    network.eval()
    for _ in range(length):
        logits = network(tokens[:, -context:])[:, -1].float()  # (B, V)
        logits[:, 0] = -torch.inf  # number 0 stands for characters that training has not seen
        if temperature == 0:
            following = logits.argmax(-1, keepdim=True)
        else:
            following = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        tokens = torch.cat([tokens, following], 1)
    network.train(was_training)
    return tokens


def samples(
    network: Network, data: DataSet, part: Part, device: torch.device, seed: int
) -> list[dict[str, str]]:
    """What the network writes after the beginnings of some windows of the part: {"prompt", "text"}."""
    count = min(SAMPLES, len(part))
    if not count:
        return []
    index = torch.linspace(0, len(part) - 1, count).long()
    prompts = part.gather(index)[0]
    context = data.input_shape[0]
    written = generate(network, prompts.to(device), context, SAMPLE_LENGTH, 0.8, seed).cpu()
    return [
        {"prompt": decode(p, data.preparation), "text": decode(w[len(p) :], data.preparation)}
        for p, w in zip(prompts, written, strict=True)
    ]
