"""The tiers of the memory ladder for a stock pipeline, through diffusers' own methods."""

from __future__ import annotations

from typing import Any

import torch

from i2v_lab.models.memory.tiers import group_options
from i2v_lab.models.stock.watch import networks


def put_on(pipe: Any, tier: int, device: torch.device, *, offloads: bool) -> None:
    """Put a pipeline on a tier, whatever tier it was on.

    Args:
        tier: 0, 3 (each network is on the device while it works), 4 (one block of a network), 5 (as 4, and the VAE decodes in tiles).
        offloads: whether weights wait in the machine's memory on tiers 3 to 5; on a CPU that saves nothing.
    """
    undo(pipe)
    if not offloads or tier == 0:
        pipe.to(device)
    elif tier == 3:
        pipe.to("cpu")
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.to("cpu")
        _offload_blocks(pipe, device)
    if tier == 5 and hasattr(pipe.vae, "enable_tiling"):
        pipe.vae.enable_tiling()


def _offload_blocks(pipe: Any, device: torch.device) -> None:
    """One block of each network on the device at a time; see `is_whole`."""
    from diffusers.hooks import apply_group_offloading

    for name, network in networks(pipe).items():
        if is_whole(name):
            network.to(device)
        else:
            apply_group_offloading(
                network,
                onload_device=device,
                **group_options(),
                block_modules=inner_lists(network) or None,
            )


def is_whole(name: str) -> bool:
    """Whether a network goes to the device whole: VAEs and vocoders are small, and call parts out of order."""
    return "vae" in name or name == "vocoder"


def inner_lists(network: torch.nn.Module) -> list[str]:
    """The names of the parts of a text or picture encoder in which its blocks are: diffusers looks for them at the top alone.

    Without them an encoder of 11 GB would be on the device whole.
    """
    found: list[str] = []
    while not hasattr(network, "register_to_config"):
        inside = [(name, child) for name, child in network.named_children() if any(map(_is_list, child.modules()))]
        if not inside or any(_is_list(child) for _, child in inside):
            break
        (name, network), *others = inside
        if others:  # several towers, which may be called in any order
            break
        found.append(name)
    return found


def _is_list(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.ModuleList)


def undo(pipe: Any) -> None:
    """Make the pipeline as it was loaded, except for the device that its weights are on."""
    pipe.remove_all_hooks()
    for network in networks(pipe).values():
        for module in network.modules():
            registry = getattr(module, "_diffusers_hook", None)
            if registry is not None and "group_offloading" in registry.hooks:
                registry.remove_hook("group_offloading", recurse=False)
    if hasattr(pipe.vae, "disable_tiling"):
        pipe.vae.disable_tiling()
