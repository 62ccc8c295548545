"""A model in parts: each process keeps a share of every layer's weights, gradients and moments (FSDP2).

Ours, for towers that do not fit on one device beside their optimiser; torch's `fully_shard` does the work, a group of
weights for each block of a tower and one for the rest, as torchtitan and open_clip cut their models. A block's weights
are gathered for its pass and given back after it; its gradients are summed into the shares. Reads and writes nothing:
checkpoints and models leave here whole, and are those of a training that was not cut. Differs from open_clip in the
learned scale and bias, which torch cannot cut: they stay whole, and their gradients are summed. Gives up: gathering in
bf16 (autocast rounds each block's gathered weights, as it does without sharding), and everything that needs a whole
matrix or a second model (`checks.check_division` names it).
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mobileclip2_lite.training.distributed import Processes
from mobileclip2_lite.training.optimizer import decay_groups, is_cut

BLOCKS = re.compile(r"(resblocks|blocks|layers?\d*)$")
"""Names of the lists whose members are gathered one at a time: open_clip's, timm's, a ResNet's."""


class Sharded:
    """A model of which this process holds a part; every method must be called by all processes.

    Args:
        model: whole, and the same in all processes; afterwards its weights are this process's shares.
        processes: two or more.

    Raises:
        ValueError: this torch does not have FSDP2 as it is needed.
    """

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
            raise ValueError(f"parallel='fsdp' needs torch 2.9 or newer, not {torch.__version__}: set parallel='ddp'")
        self.model, self.processes = model, processes
        self.form = copy.deepcopy(model).to("cpu") if processes.first else None
        """The whole model, to be filled with gathered weights; in the first process."""
        model.to(memory_format=torch.contiguous_format)  # torch cuts no others
        self.uncut = [parameter for parameter in model.parameters() if not parameter.ndim]
        mesh = init_device_mesh(processes.device.type, (processes.size,))
        for block in blocks(model):
            fully_shard(block, mesh=mesh)
        self.root = _Root(model)
        fully_shard(self.root, mesh=mesh, ignored_params=set(self.uncut))
        for module in self.root.modules():
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)  # the processes' losses add up: sums, not means
                module.set_force_sum_reduction_for_comms(True)  # gloo knows no other

    def call(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """`function(*inputs)`, which calls parts of the model, with the weights that it needs gathered."""
        return self.root(function, *inputs)

    @torch.no_grad()
    def clip_(self, most: float) -> Tensor:
        """Sum gradients of what is not cut, scale all to a norm of at most `most` (0: leave them); the norm before."""
        self.processes.sum_gradients(self.uncut)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        squares = torch.zeros(2, device=self.processes.device)
        for gradient in gradients:
            squares[int(is_cut(gradient))] += _local(gradient).square().sum()
        norm = (squares[0] + self.processes.sum(squares[1])).sqrt()
        if most > 0:
            torch._foreach_mul_([_local(gradient) for gradient in gradients], (most / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def state(self) -> dict[str, Tensor]:
        """The whole model's `state_dict` on the CPU; empty but in the first process."""
        return self._gathered(self.model.state_dict())

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take this process's share of a whole `state_dict`."""
        own = self.model.state_dict()
        if own.keys() != state.keys():
            raise ValueError(f"the checkpoint is another model's: {sorted(own.keys() ^ state.keys())[:3]} differ")
        for name, value in own.items():
            self._fill(value, state[name])

    def whole(self) -> nn.Module:
        """The whole model on this process's device, in the first process; in the others the one that is cut."""
        state = self.state()
        if self.form is None:
            return self.model
        self.form.load_state_dict(state)
        return copy.deepcopy(self.form).to(self.processes.device)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The optimiser's `state_dict`, as of a model that is not cut; without tensors but in the first process."""
        found = optimizer.state_dict()
        names, numbers = self._order(optimizer)
        state = {numbers[n]: self._gathered(found["state"][i]) for i, n in enumerate(names) if i in found["state"]}
        groups, start = [], 0
        for plain in self._groups():
            own = next(g for g in found["param_groups"] if names[g["params"][0]] in plain)
            groups.append({**own, "params": list(range(start, start + len(plain)))})
            start += len(plain)
        return {"state": {number: state[number] for number in sorted(state)}, "param_groups": groups}

    def load_optimizer_state(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """Take this process's share of the state of an optimiser whose model is not cut."""
        names, numbers = self._order(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        own = {}
        for place, name in enumerate(names):
            found = state["state"].get(numbers[name], {})
            own[place] = {
                key: self._fill(torch.empty_like(parameters[place]), value) if value.ndim else value
                for key, value in found.items()
            }
        optimizer.load_state_dict({**optimizer.state_dict(), "state": own})

    def _groups(self) -> list[list[str]]:
        """Names of the parameters as an optimiser takes them whose model is not cut."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return [[names[id(parameter)] for parameter in group] for group in decay_groups(self.model) if group]

    def _order(self, optimizer: torch.optim.Optimizer) -> tuple[list[str], dict[str, int]]:
        """Names of the parameters in this optimiser's order, and each one's number where the model is not cut."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        own = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
        return own, {name: number for number, name in enumerate(itertools.chain(*self._groups()))}

    def _gathered(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each tensor whole, on the CPU; nothing but in the first process."""
        from torch.distributed.tensor import DTensor

        found = {}
        for name, value in tensors.items():
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            if self.processes.first:
                found[name] = whole.detach().to("cpu")
        return found

    @torch.no_grad()
    def _fill(self, own: Tensor, whole: Tensor) -> Tensor:
        """Overwrite `own` with this process's rows of `whole`, if it is cut; returns it."""
        if is_cut(own):
            shares = whole.chunk(self.processes.size)
            share = shares[self.processes.rank] if self.processes.rank < len(shares) else whole[:0]
            own.to_local().copy_(share)
        else:
            own.copy_(whole)
        return own


class _Root(nn.Module):
    """Lends the model's weights to any function that calls its parts, as fully_shard lends them to `forward`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        return function(*inputs)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The members of the model's lists of blocks, outermost lists only."""
    found: list[nn.Module] = []
    taken: list[str] = []
    for name, module in model.named_modules():
        of_blocks = isinstance(module, nn.ModuleList | nn.Sequential) and BLOCKS.fullmatch(name.rpartition(".")[2])
        if of_blocks and not name.startswith(tuple(taken)):
            taken.append(f"{name}.")
            found += [block for block in module if next(block.parameters(), None) is not None]
    return found


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if is_cut(tensor) else tensor
