"""The tiers of the memory ladder, cheapest in time first, and how a model of four networks is put on one.

The pixels of a clip must not depend on the tier that made it, so that a clip has one key whatever memory was free. Tiers
that keep them do the same arithmetic in another order of memory, and were measured to be bit-equal in float32 on a CPU:

- No tier decodes several frames at once. Convolutions and norms of a batch differ from those of one frame in the last
  bits (up to 3e-5 with the full VAE in float32, so some 1 in 5,000 bytes changes), and it was 6 % faster on two cores.
- Feed-forward layers are cut into parts of CHUNK_ROWS rows or more, never smaller ones: matrix products of some hundred
  rows take other paths. From 1024 rows on, widths 32 to 1280 were equal in float32, from 4096 on in bfloat16 as well.
- VAE tiling sees less of the picture around each pixel, and does change them: it makes clips of another key. Only decoding
  is tiled: tiles in the latents of the picture would change what is in the clip.

Offloading (tiers 3, 4 and 6) moves weights between the GPU and the machine's memory, and means nothing where both are one.
It is written against the hooks of diffusers and accelerate, and was run with a CPU in the place of the GPU alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the words for the tiers must cost nothing
    import torch

CHUNK_ROWS = 4096  # a latent cell of a frame is a row: one frame of 512x512 has as many
TILE = 256  # pixels along each side of a tile of the VAE; a quarter of it overlaps the next
NETWORKS = ("text_encoder", "image_encoder", "vae", "unet")
STAGES = {"encode": ("text_encoder", "image_encoder", "vae"), "denoise": ("unet",), "decode": ("vae",)}


@dataclass(frozen=True)
class Tier:
    """One tier.

    Attributes:
        number: 0 to 6; higher ones take less memory of the device, and more time.
        name: for people, short.
        about: what it turns on, in words.
        changes_pixels: whether the clip differs a little from the same clip on a lower tier.
        cuda_only: whether it means nothing on a CPU. These tiers load the weights into the machine's memory.
    """

    number: int
    name: str
    about: str
    changes_pixels: bool = False
    cuda_only: bool = False


TIERS = (
    Tier(0, "nothing", "everything stays on the device, the decoded frames too until the last is made"),
    Tier(1, "frame by frame", "each decoded frame leaves the device at once, as bytes"),
    Tier(2, "forward chunking", f"as 1, and feed-forward layers of the UNet run in parts of {CHUNK_ROWS} rows or more"),
    Tier(3, "model offload", "as 2, and each network is on the GPU only while it works", cuda_only=True),
    Tier(4, "group offload", "as 3, and of the UNet one block at a time", cuda_only=True),
    Tier(5, "VAE tiling", f"as the tier before, and frames above {TILE} pixels are decoded in tiles", changes_pixels=True),
    Tier(6, "sequential offload", "as 2 with VAE tiling, and each layer is on the GPU only while it works",
         changes_pixels=True, cuda_only=True),
)  # fmt: skip


def tiers_on(device: str) -> tuple[int, ...]:
    """The numbers of the tiers on a device ("cpu", "cuda:0"), in the order they are tried."""
    return tuple(tier.number for tier in TIERS if device.startswith("cuda") or not tier.cuda_only)


def changes_pixels(number: int, height: int, width: int) -> bool:
    """Whether a clip of this size, in pixels, differs on this tier from the same clip on tier 0."""
    return TIERS[number].changes_pixels and max(height, width) > TILE


def pixel_changes(number: int, height: int, width: int) -> dict[str, str]:
    """What `clip_key` has to know of a tier: nothing where the pixels stay as they are."""
    return {"decoded": "in tiles"} if changes_pixels(number, height, width) else {}


def code(number: int) -> int:
    """The lowest tier that runs the same arithmetic, without the offloading: 0, 1, 2 or 5."""
    return number if number < 3 else 5 if TIERS[number].changes_pixels else 2


def resident(model: Any, stage: str, number: int, device: str) -> int:
    """Bytes of weights on the device at most during a stage, by formula from the sizes of the modules.

    Args:
        model: with the networks NETWORKS as attributes; their tensors may be fake, and on another device.
        stage: encode, denoise or decode.
        number: the tier.
        device: "cpu" or "cuda:0", say. On a CPU nothing is offloaded.
    """
    if number < 3 or not device.startswith("cuda"):
        return sum(bytes_of(getattr(model, name)) for name in NETWORKS)
    found = []
    for name in STAGES[stage]:
        network = getattr(model, name)
        if number == 6:
            found.append(max(bytes_of(module, recurse=False) for module in network.modules()))
        elif number >= 4 and name == "unet":
            found.append(block_bytes(network))
        else:
            found.append(bytes_of(network))
    # The network before goes when the next comes, and for that moment nothing runs: they do not add up.
    return max(found)


def block_bytes(network: torch.nn.Module, through: Collection[str] = ()) -> int:
    """Bytes of a network on the device while it works in groups of one block: the largest block, and what is in none.

    Args:
        through: names of parts that have blocks of their own; see diffusers' apply_group_offloading(block_modules=...).
    """
    blocks = list(map(bytes_of, _blocks(network, through)))
    return bytes_of(network) - sum(blocks) + max(blocks, default=0)


def _blocks(network: torch.nn.Module, through: Collection[str] = ()) -> Iterable[torch.nn.Module]:
    """The blocks that diffusers' group offloading moves one at a time; the rest of the network stays while it works."""
    import torch

    for name, child in network.named_children():
        if name in through:
            yield from _blocks(child, through)
        elif isinstance(child, (torch.nn.ModuleList, torch.nn.Sequential)):
            yield from child.children()


def tensors_of(modules: Iterable[torch.nn.Module], recurse: bool = True) -> Iterator[torch.Tensor]:
    """Parameters and buffers."""
    for module in modules:
        yield from module.parameters(recurse)
        yield from module.buffers(recurse)


def bytes_of(module: torch.nn.Module, recurse: bool = True) -> int:
    """Bytes of a network's parameters and buffers; what two of them share counts once."""
    storages = (tensor.untyped_storage() for tensor in tensors_of([module], recurse))
    return sum({id(storage): storage.nbytes() for storage in storages}.values())


def put_on(model: Any, number: int, device: torch.device) -> None:
    """Put a model on a tier, whatever tier it was on, and however far an earlier call came.

    Args:
        model: with the networks NETWORKS as attributes.
        number: the tier.
        device: where it computes.

    Raises:
        RuntimeError, MemoryError: the weights do not fit; the model can still be put on another tier.
    """
    import torch

    _undo(model)
    offloads = number >= 3 and device.type != "cpu"
    for name in NETWORKS:
        network = getattr(model, name)
        if (home := torch.device("cpu") if offloads else device) != _place(network):
            network.to(home)
    if number >= 2:
        _chunk_forward(model.unet)
    if offloads:
        offload(model, number, device)


def offload(model: Any, number: int, device: torch.device) -> None:
    """Put the hooks of tiers 3 to 6 on the networks, whose weights must be in the machine's memory.

    Args:
        device: where the layers run. A CPU runs the same hooks, and saves nothing.
    """
    import accelerate

    if number == 6:
        for name in NETWORKS:
            network = getattr(model, name)
            accelerate.cpu_offload(network, device, offload_buffers=len(network._parameters) > 0)
        return
    before = None
    for name in NETWORKS:
        if name == "unet" and number >= 4:
            from diffusers.hooks import apply_group_offloading

            apply_group_offloading(model.unet, onload_device=device, **group_options())
        else:
            _, before = accelerate.cpu_offload_with_hook(getattr(model, name), device, before)
            model.offloaders[name] = before


_streams: ContextVar[bool] = ContextVar("streams", default=False)


def group_options() -> dict[str, Any]:
    """What group offloading is called with: one block at a time, and no stream, outside `with_streams`.

    Prefetching by a stream keeps a second block on the device, and a pinned copy of all weights in the machine's memory.
    """
    import torch

    options: dict[str, Any] = {"offload_device": torch.device("cpu"), "offload_type": "block_level", "num_blocks_per_group": 1}
    return options | ({"use_stream": True} if _streams.get() else {})


@contextmanager
def with_streams() -> Iterator[None]:
    """Inside, models that are put on a tier of group offloading fetch the next block by a stream while one works. Needs a GPU."""
    token = _streams.set(True)
    try:
        yield
    finally:
        _streams.reset(token)


def release(model: Any, *names: str) -> None:
    """Take the weights of networks off the device, on tiers that offload; elsewhere nothing.

    A hook takes off the network that was before it in the order of NETWORKS when its own begins. What does not follow that
    order says so here: the VAE works twice, and the UNet in groups takes nothing off.
    """
    for name in names:
        if name in model.offloaders:
            model.offloaders[name].offload()


def _place(network: torch.nn.Module) -> torch.device | None:
    """Where all tensors of a network are; None where they are in several places."""
    places = {tensor.device for tensor in tensors_of([network])}
    return places.pop() if len(places) == 1 else None


def _undo(model: Any) -> None:
    """Make the networks as they were loaded, except for the device that their weights are on."""
    from accelerate.hooks import remove_hook_from_module

    model.offloaders.clear()
    for module in (module for name in NETWORKS for module in getattr(model, name).modules()):
        if hasattr(module, "_hf_hook"):
            remove_hook_from_module(module)
        elif hasattr(module, "_diffusers_hook"):
            module._diffusers_hook.remove_hook("group_offloading", recurse=False)
            del module._diffusers_hook
        forward = module.__dict__.get("forward")
        # A hook that is gone leaves the method that the class has anyway.
        if getattr(forward, "func", None) is _chunked or getattr(forward, "__func__", None) is type(module).forward:
            del module.forward
    model.vae.disable_tiling()


def _chunk_forward(unet: torch.nn.Module) -> None:
    from diffusers.models.attention import BasicTransformerBlock

    for module in unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.ff.forward = partial(_chunked, module.ff)


def _chunked(layer: torch.nn.Module, states: torch.Tensor) -> torch.Tensor:
    """The forward pass of a feed-forward layer, a part of the rows at a time: (..., D) to (..., D).

    diffusers' own chunking cuts along one dimension into a given number of parts, which must divide: the UNet's layers see
    frames in that dimension here, and pixels there.
    """
    import torch

    forward = type(layer).forward
    rows = states.reshape(-1, states.shape[-1])
    parts = len(rows) // CHUNK_ROWS
    if parts < 2:
        return torch.as_tensor(forward(layer, states))
    result = torch.empty_like(rows)
    for part, place in zip(rows.tensor_split(parts), result.tensor_split(parts), strict=True):
        place.copy_(forward(layer, part))
    return result.view(states.shape)


def tile(vae: Any) -> None:
    """Tiles of TILE pixels from now on; diffusers' own are as large as the pictures that the VAE was trained on."""
    vae.enable_tiling()
    vae.tile_sample_min_size = TILE
    vae.tile_latent_min_size = TILE // 2 ** (len(vae.config.block_out_channels) - 1)
