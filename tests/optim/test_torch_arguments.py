"""Every argument that torch's class of the same name takes gives torch's numbers, or is refused by name."""

import copy
import inspect
import pickle

import pytest
import torch
from optimizer_classes import LIKE_ADAM
from torch import nn

import stepwell.optim as ours
from stepwell.engine.eager import pack
from stepwell.errors import UserError

pytestmark = pytest.mark.usefixtures("float64_scalars")


CLASSES = [name for name in LIKE_ADAM if hasattr(torch.optim, name)]
REFUSED = {"differentiable"}
BASES = {
    # SGD's dampening and nesterov act with momentum alone.
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
    "RMSprop": [{}, {"centered": True}, {"momentum": 0.9}, {"centered": True, "momentum": 0.9}],
    # Its average begins at t0.
    "ASGD": [{}, {"t0": 5}],
    "NAdam": [{}, {"momentum_decay": 0.3}],
}
# Not so far from the default that the run magnifies the last digit's rounding.
OTHER = {
    "alpha": 0.9,
    "betas": (0.8, 0.95),
    "etas": (0.4, 1.3),
    "step_sizes": (1e-3, 0.02),
    "t0": 7,
    "lambd": 0.2,
}


def signature(name):
    return dict(list(inspect.signature(getattr(torch.optim, name)).parameters.items())[1:])  # without params


def values(argument, default):
    """The default and values that are not it, by the default's kind."""
    if argument in OTHER:
        return [default, OTHER[argument]]
    if argument == "lr":
        return [default, 0.004, torch.tensor(0.004, dtype=torch.float64)]
    if isinstance(default, bool):
        return [False, True]
    if default is None:
        return [None, False, True]
    return [default, 0.05, torch.tensor(0.05, dtype=torch.float64)]


CASES = [
    pytest.param(name, base, argument, value, positional, id=f"{name} {base} {argument}={value} {positional}")
    for name in CLASSES
    for base in BASES.get(name, [{}])
    for argument, parameter in signature(name).items()
    for value in values(argument, parameter.default)
    for positional in (False, True)
    if not (positional and parameter.kind is inspect.Parameter.KEYWORD_ONLY)
]


def problem(packed=False):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    if packed:
        pack(net.parameters())
    return net


def halves(net):
    return [{"params": list(net[0].parameters())}, {"params": list(net[2].parameters())}]


def train(net, optimizer, start=0, end=40, change=lambda optimizer, step: None):
    torch.manual_seed(1)
    xs = torch.randn(40, 5, 4, dtype=torch.float64)
    for step in range(start, end):
        optimizer.zero_grad()
        (net(xs[step]) - xs[step, :, :2].sin()).square().mean().backward()
        change(optimizer, step)
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def assert_same(one, two):
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "base", "argument", "value", "positional"), CASES)
def test_an_argument_means_what_it_means_in_torch_or_is_refused(name, base, argument, value, positional):
    """Forty float64 steps end at torch's weights, or a UserError names it; a tensor is its number."""
    parameters = signature(name)
    given = {"weight_decay": 0.02} if "weight_decay" in parameters else {}
    given |= {**base, argument: value}
    before = list(parameters)[: list(parameters).index(argument) + 1] if positional else []
    arguments = [given.pop(key, parameters[key].default) for key in before]
    net, theirs = problem(), problem()
    make = getattr(ours, name)
    whole = {**base, argument: value}
    wrong = argument if argument in REFUSED and value != parameters[argument].default else None
    if whole.get("nesterov") and (not whole.get("momentum") or whole.get("dampening")):
        wrong = "nesterov"  # torch refuses it too
    if wrong:
        with pytest.raises(UserError, match=f"^{wrong}="):
            make(net.parameters(), *arguments, **given)
        return
    found = train(net, make(net.parameters(), *arguments, **given))
    if argument == "capturable":  # torch's kernels for it do not run on a CPU
        given.pop("capturable", None)
        arguments = [False if key == "capturable" else v for key, v in zip(before, arguments, strict=True)]
    if isinstance(value, torch.Tensor):  # which torch takes for some arguments
        given = {key: float(v) if v is value else v for key, v in given.items()}
        arguments = [float(v) if v is value else v for v in arguments]
    assert_same(found, train(theirs, getattr(torch.optim, name)(theirs.parameters(), *arguments, **given)))


@pytest.mark.parametrize("how", ["in a group", "added", "set later", "in a state"])
@pytest.mark.parametrize("argument", sorted(REFUSED))
def test_what_is_refused_is_refused_wherever_it_comes_in(argument, how):
    """In the constructor's groups, in an added group, in mid-run and in a loaded state."""
    (name,) = [name for name in CLASSES if argument in signature(name)][:1]
    net, wrong = problem(), {argument: True}
    make = getattr(ours, name)
    one, two = halves(net)
    optimizer = make([one])
    with pytest.raises(UserError, match=f"^{argument}="):
        if how == "in a group":
            make([one, {**two, **wrong}])
        elif how == "added":
            optimizer.add_param_group({**two, **wrong})
        elif how == "set later":
            train(net, optimizer, 0, 2, lambda o, step: o.param_groups[0].update(wrong) if step else None)
        else:
            state = optimizer.state_dict()
            state["param_groups"][0].update(wrong)
            optimizer.load_state_dict(state)


@pytest.mark.parametrize(
    ("kind", "wrong", "hint"),
    [
        ("SGD", "momentun", "did you mean momentum"),
        ("SGD", "weightdecay", "did you mean weight_decay"),
        ("Adam", "beta", "did you mean betas"),
        ("Adam", "decoupled_decay", "did you mean decoupled_weight_decay"),
        ("MomentumDisplacement", "nesterov_", "there are params, lr, momentum"),
    ],
)
def test_an_unknown_argument_is_refused_with_the_nearest(kind, wrong, hint):
    """A misspelt keyword is named, with the argument that was meant or with all there are."""
    with pytest.raises(UserError, match=f"^{kind} has no argument {wrong}; {hint}"):
        getattr(ours, kind)(problem().parameters(), **{wrong: 0.9})


# Another value of each hyperparameter, from step 20 on in one of two groups.
CHANGES = [
    ("SGD", {}, {"lr": 0.03}),
    ("SGD", {"momentum": 0.9}, {"lr": 0.03}),
    ("SGD", {}, {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9}, {"momentum": 0.0}),
    ("SGD", {"momentum": 0.9}, {"momentum": 0.5}),
    ("SGD", {"momentum": 0.9}, {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9}, {"dampening": 0.5}),
    ("SGD", {"momentum": 0.9}, {"nesterov": True}),
    ("SGD", {"momentum": 0.9, "lr": 0.001}, {"maximize": True}),
    ("Adam", {}, {"lr": 0.03}),
    ("Adam", {}, {"betas": (0.5, 0.9)}),
    ("Adam", {}, {"eps": 1e-3}),
    ("Adam", {}, {"weight_decay": 0.1}),
    ("Adam", {"weight_decay": 0.1}, {"decoupled_weight_decay": True}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}, {"weight_decay": 0.5}),
    ("Adagrad", {}, {"lr": 0.3}),
    ("Adagrad", {"initial_accumulator_value": 0.1}, {"lr_decay": 0.2}),
    ("RMSprop", {}, {"alpha": 0.8}),
    ("RMSprop", {"momentum": 0.9, "lr": 0.001}, {"momentum": 0.5}),
    ("RMSprop", {"centered": True}, {"eps": 1e-3}),
    ("Adadelta", {}, {"rho": 0.5}),
    ("RAdam", {"betas": (0.5, 0.9)}, {"betas": (0.5, 0.999)}),
    ("RAdam", {"weight_decay": 0.1}, {"decoupled_weight_decay": True}),
    ("NAdam", {}, {"momentum_decay": 0.5}),
    ("NAdam", {}, {"betas": (0.5, 0.9)}),
    ("Adamax", {}, {"betas": (0.5, 0.9)}),
    ("ASGD", {"t0": 5}, {"lr": 0.01}),
    ("ASGD", {"t0": 5, "lambd": 0.1}, {"alpha": 0.5}),
    ("ASGD", {}, {"t0": 25}),
    ("Rprop", {}, {"etas": (0.3, 1.1)}),
    ("Rprop", {}, {"step_sizes": (1e-4, 0.01)}),
]


@pytest.mark.parametrize("packed", [False, True], ids=["apart", "packed"])
@pytest.mark.parametrize("how", ["from the start", "in mid-run", "there and back", "added in mid-run"])
@pytest.mark.parametrize(("name", "base", "other"), CHANGES, ids=str)
def test_each_group_has_its_own_values_as_in_torch(name, base, other, how, packed):
    """A hyperparameter of one group, given, added or changed in mid-run, ends at torch's weights."""
    ends, states = [], []
    for library in (ours, torch.optim):
        net = problem(packed)
        one, two = halves(net)
        make, start = getattr(library, name), {"lr": 0.05, **base}
        if how == "added in mid-run":
            optimizer = make([one], **start)
        else:
            optimizer = make([one, {**two, **other} if how == "from the start" else two], **start)
        first = {key: optimizer.defaults[key] for key in other}

        def change(optimizer, step, group=two, first=first):
            if how == "added in mid-run" and step == 20:
                optimizer.add_param_group({**group, **other})
            elif how in ("in mid-run", "there and back") and step == 20:
                optimizer.param_groups[1].update(other)
            elif how == "there and back" and step == 30:
                optimizer.param_groups[1].update(first)

        ends.append(train(net, optimizer, change=change))
        states.append([dict(optimizer.state[p]) for p in net.parameters()])
    assert_same(*ends)
    for mine, theirs in zip(*states, strict=True):
        assert_same({key: mine[key] for key in theirs}, theirs)
        assert mine.keys() <= theirs.keys() | {"step"}


@pytest.mark.parametrize("before", [0.0, 0.9])
@pytest.mark.parametrize("direction", ["torch to ours", "ours to torch"])
def test_momentum_changed_around_a_state_dict(before, direction):
    """A state saved after momentum went on or off continues in the other library as torch's own run."""

    def change(optimizer, step):
        if step in (10, 25):
            group = optimizer.param_groups[0]
            group["momentum"] = 0.9 - group["momentum"]

    makes = [torch.optim.SGD, ours.SGD] if direction == "torch to ours" else [ours.SGD, torch.optim.SGD]
    net, whole = problem(), problem()
    first = makes[0](net.parameters(), lr=0.05, momentum=before)
    train(net, first, 0, 20, change)
    second = makes[1](net.parameters())
    second.load_state_dict(first.state_dict())
    moved = train(net, second, 20, 40, change)
    assert_same(
        moved, train(whole, torch.optim.SGD(whole.parameters(), lr=0.05, momentum=before), change=change)
    )


@pytest.mark.parametrize("again", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_made_while_momentum_is_off_keeps_the_velocity(again):
    """0.9 → 0 → copy → 0.9 goes on with the velocity that was left, as in torch."""
    ends = []
    for make in (ours.SGD, torch.optim.SGD):
        net = problem()
        optimizer = make(net.parameters(), lr=0.05, momentum=0.9)
        train(net, optimizer, 0, 10)
        optimizer.param_groups[0]["momentum"] = 0.0
        train(net, optimizer, 10, 20)
        net, optimizer = again((net, optimizer))
        optimizer.param_groups[0]["momentum"] = 0.9
        ends.append(train(net, optimizer, 20, 30))
    assert_same(*ends)


def test_hyperparameters_and_state_follow_the_groups_rule():
    """What is told of a group is what its rule of today has."""
    net = problem()
    optimizer = ours.SGD([{**halves(net)[0], "momentum": 0.9}, halves(net)[1]], lr=0.05)
    assert optimizer.hyperparameters(0) == {"lr": 0.05, "momentum": 0.9, "dampening": 0.0}
    assert optimizer.hyperparameters(1) == {"lr": 0.05}
    assert [list(engine.state[0]) for engine in optimizer.engines()] == [["momentum_buffer"], []]
    optimizer.param_groups[1]["momentum"] = 0.5
    assert optimizer.hyperparameters(1) == {"lr": 0.05, "momentum": 0.5, "dampening": 0.0}
    train(net, optimizer, 0, 2)
    assert all("momentum_buffer" in optimizer.state[p] for p in net.parameters())
    optimizer.param_groups[0]["momentum"] = 0.0
    assert list(optimizer.engines()[0].state[0]) == []
    optimizer.param_groups[0]["momentum"] = 0.9
    for engine in optimizer.engines():
        for p, state in zip(engine.parameters, engine.state, strict=True):
            assert optimizer.state[p]["momentum_buffer"] is state["momentum_buffer"]


@pytest.mark.parametrize("direction", ["torch to ours", "ours to torch"])
def test_adamws_state_is_taken_and_given(direction):
    """torch's AdamW and Adam(decoupled_weight_decay=True) continue each other."""

    def mine(parameters):
        return ours.Adam(parameters, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True)

    def torchs(parameters):
        return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)

    net, whole = problem(), problem()
    first, second = (torchs, ours.Adam) if direction == "torch to ours" else (mine, torch.optim.AdamW)
    optimizer = first(net.parameters())
    train(net, optimizer, 0, 20)
    later = second(net.parameters())
    later.load_state_dict(optimizer.state_dict())
    assert_same(train(net, later, 20, 40), train(whole, torchs(whole.parameters())))
