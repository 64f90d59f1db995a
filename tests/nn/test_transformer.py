"""Causal transformer."""

from math import exp, sqrt

import pytest
import torch

from stepwell.errors import UserError
from stepwell.nn import draws
from stepwell.nn.configs import TransformerModel
from stepwell.nn.transformer import Attention, build


def norm(x, p, name):
    """(x − mean) / √(variance + 1e-5) · gain + shift, each position by itself."""
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attention(x, p, name, heads):
    """One query at a time over the keys up to it, with a softmax written out; x (T, C)."""
    q, k, v = linear(x, p, f"{name}.qkv").chunk(3, -1)
    d = x.shape[1] // heads
    rows = []
    for t in range(len(x)):
        parts = []
        for head in range(heads):
            own = slice(head * d, (head + 1) * d)
            weight = (k[: t + 1, own] @ q[t, own] / sqrt(d)).exp()
            parts.append((weight / weight.sum()) @ v[: t + 1, own])
        rows.append(torch.cat(parts))
    return linear(torch.stack(rows), p, f"{name}.out")


def gelu(z):
    return z * (1 + torch.erf(z / sqrt(2))) / 2


def test_forward_and_gradient_equal_the_equations_written_out():
    """float64, two layers, two heads, weights far from zero: logits and gradients, one position at a time."""
    torch.manual_seed(0)
    body = build(TransformerModel(layers=2, heads=2, width=8), (6,), 5, "text").double()
    for weight in body.parameters():
        weight.data.normal_()
    p = {key: weight.detach().clone().requires_grad_() for key, weight in body.named_parameters()}
    tokens = torch.randint(5, (3, 6))
    rows = []
    for sample in tokens:
        x = p["embedding.weight"][sample] + p["position.weight"]
        for block in ("blocks.0", "blocks.1"):
            x = x + attention(norm(x, p, f"{block}.norm1"), p, f"{block}.attention", 2)
            x = x + linear(gelu(linear(norm(x, p, f"{block}.norm2"), p, f"{block}.up")), p, f"{block}.down")
        rows.append(linear(norm(x, p, "norm"), p, "linear"))
    expected = torch.stack(rows)
    torch.testing.assert_close(body(tokens), expected)
    expected.square().sum().backward()
    body(tokens).square().sum().backward()
    for key, weight in body.named_parameters():
        torch.testing.assert_close(weight.grad, p[key].grad, rtol=1e-7, atol=1e-9)


def test_later_tokens_change_nothing_before_them():
    """Causality: the logits at t are the same whatever follows t, and whether anything follows."""
    body = build(TransformerModel(layers=2, width=16), (10,), 7, "text").double().eval()
    tokens = torch.randint(7, (4, 10))
    whole = body(tokens)
    for t in range(10):
        changed = tokens.clone()
        changed[:, t + 1 :] = (changed[:, t + 1 :] + 1) % 7
        torch.testing.assert_close(body(changed)[:, : t + 1], whole[:, : t + 1], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(body(tokens[:, : t + 1]), whole[:, : t + 1], rtol=1e-12, atol=1e-12)


def test_starts_with_every_token_equally_likely():
    """GPT-2's small weights: the first loss is log V within 1 %, so no updates are spent on unlearning."""
    body = build(TransformerModel(), (64,), 65, "text")
    tokens = torch.randint(65, (8, 64))
    loss = torch.nn.functional.cross_entropy(body(tokens).flatten(0, 1), tokens.flatten())
    assert 0.97 * 65 < exp(loss.item()) < 1.05 * 65


def test_parameters():
    """Closed form: V·C + T·C, layers·(12·C² + 13·C), 2·C, C·V + V."""
    v, t, c, layers = 65, 64, 32, 3
    body = build(TransformerModel(layers=layers, width=c), (t,), v, "text")
    expected = v * c + t * c + layers * (12 * c * c + 13 * c) + 2 * c + c * v + v
    assert sum(weight.numel() for weight in body.parameters()) == expected


def test_refuses_images_and_longer_texts():
    """Both in one sentence; heads must divide the width."""
    with pytest.raises(UserError, match="model transformer wants text, but the data has images of 1×8×8"):
        build(TransformerModel(), (1, 8, 8), 10)
    with pytest.raises(UserError, match="reads 6 tokens at most, but got 7"):
        build(TransformerModel(), (6,), 5, "text")(torch.zeros(1, 7, dtype=torch.int64))
    with pytest.raises(ValueError, match="width=30 must be a multiple of heads=4"):
        TransformerModel(width=30)


@pytest.mark.parametrize("kind", ["inverted", "scaled", "spatial"])
def test_dropout_of_attention(kind):
    """Supplied draws: softmax times the mask, but for spatial; scaled multiplies in evaluation."""
    torch.manual_seed(0)
    config = TransformerModel.model_validate({"heads": 2, "width": 8, "dropout": {"p": 0.5, "kind": kind}})
    layer, x = Attention(config).double(), torch.randn(3, 6, 8, dtype=torch.float64)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1))
    weights = (q @ k.mT / 2).masked_fill(torch.ones(6, 6).triu(1).bool(), -torch.inf).softmax(-1)
    mask = (torch.arange(3 * 2 * 6 * 6).view(3, 2, 6, 6) % 3 > 0).double()
    kept = {"inverted": 2 * mask, "scaled": mask, "spatial": torch.ones_like(mask)}[kind]

    def out(weights):
        return layer.out((weights @ v).transpose(1, 2).flatten(2))

    with draws.supplied(lambda shape, device: mask.view(shape)):
        torch.testing.assert_close(layer(x), out(weights * kept))
    torch.testing.assert_close(layer.eval()(x), out(weights * (0.5 if kind == "scaled" else 1)))


def test_the_fused_kernel_drops_as_we_do():
    """The mean of 4,000 training passes of torch's kernel is evaluation, within five standard errors."""
    torch.manual_seed(0)
    config = TransformerModel.model_validate({"heads": 1, "width": 4, "dropout": 0.3})
    layer, x = Attention(config).double(), torch.randn(1, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        y = layer(x.expand(4000, 5, 4))
        away = (y.mean(0) - layer.eval()(x)[0]).abs()
    assert (y.std(0) > 0).all() and (away < 5 * y.std(0) / 4000**0.5).all()
