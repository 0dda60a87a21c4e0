"""Checkpoints in diffusers layout: found on disk or on the hub, checked before they are loaded, fingerprinted.

A checkpoint is a folder with `model_index.json` and a folder for each component. Weights are safetensors only, because
any other format may run code when it is opened. Of two variants the float16 one is taken, which is half as large.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from i2v_lab.errors import ModelError
from i2v_lab.models import gguf_file
from i2v_lab.models.device import choose_device, choose_dtype
from i2v_lab.models.memory.ladder import is_out_of_memory
from i2v_lab.models.memory.ladder import one_line as one_line  # noqa: PLC0414 - others take it from here
from i2v_lab.models.sampling import import_diffusers

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
TOKENIZER_FILES = (("vocab.json", "merges.txt"), ("tokenizer.json",), ("spiece.model",))  # any of them is enough
SMALL = {
    "scheduler": "scheduler_config.json",
    "feature_extractor": "preprocessor_config.json",
    "image_processor": "preprocessor_config.json",
    "guider": "guider_config.json",
}
"""The config files of components without weights."""
DOWNLOADED = ("*.json", "tokenizer*/*", "*/*.safetensors")  # for people who fetch by hand
SAMPLES, SAMPLE_BYTES = 64, 4096  # of each file of weights, for the fingerprint


@dataclass(frozen=True)
class Layout:
    """What a checkpoint of one family consists of.

    Attributes:
        pipelines: what `_class_name` in model_index.json may be.
        weights: folders that hold a config.json and safetensors; none: those that model_index.json lists.
        files: other files that must be there, relative to the checkpoint's folder.
        tokenizers: folders of tokenizers.
        cuda_dtype: the number format that "auto" means on CUDA.
        file: a safetensors or GGUF file outside of the checkpoint, which has the weights of the component `filed` in its place.
    """

    pipelines: tuple[str, ...]
    weights: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    tokenizers: tuple[str, ...] = ("tokenizer",)
    cuda_dtype: str = "float16"
    file: Path | None = None
    filed: str = "transformer"

    def of(self, index: Mapping[str, Any]) -> Layout:
        """The layout of the checkpoint that has this model_index.json."""
        if self.weights:
            return self
        parts = components(index)
        return replace(
            self,
            weights=tuple(name for name in parts if name not in SMALL and not name.startswith("tokenizer")),
            files=tuple(f"{name}/{file}" for name, file in SMALL.items() if name in parts),
            tokenizers=tuple(name for name, (_, kind) in parts.items() if name.startswith("tokenizer") and kind != "ByT5Tokenizer"),
        )


def components(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """{component: (library, class)} of a model_index.json, without those that are left out."""
    found = {name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    return {name: (str(library), str(kind)) for name, (library, kind) in found.items() if library and kind}


@dataclass(frozen=True)
class Checkpoint:
    """A folder that was found complete and sound, as far as can be seen without reading the weights.

    Attributes:
        folder: where it is.
        variants: for each folder of weights "fp16" or None, as `from_pretrained(variant=...)` takes it.
        weights: every safetensors file that will be read, sorted. file: the one outside of the folder; None: there is none.
        configs: every config and tokenizer file, sorted.
    """

    folder: Path
    variants: Mapping[str, str | None]
    weights: tuple[Path, ...]
    configs: tuple[Path, ...]
    file: Path | None = None
    filed: str = ""

    def fingerprint(self) -> str:
        """sha256, as hex, of the configs, and of the safetensors files' names, headers, sizes and a sample of their bytes.

        The sample, SAMPLES blocks spread over each file, tells fine-tunes apart that have the same tensors in the same
        format, and still takes milliseconds. The place of the folder does not matter, the variant does.
        """
        digest = hashlib.sha256()
        for path in self.configs:
            _feed(digest, self._name(path), path.read_bytes())
        for path in self.weights:
            start = header(path)
            _feed(digest, self._name(path), path.stat().st_size.to_bytes(8, "little"), start, *_sample(path))
        return digest.hexdigest()

    def _name(self, path: Path) -> bytes:
        if path == self.file:
            return f"{self.filed}{path.suffix}".encode()
        return path.relative_to(self.folder).as_posix().encode()


def _sample(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        for block in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * block // (SAMPLES - 1))
            yield file.read(SAMPLE_BYTES)


def _feed(digest: Any, *parts: bytes) -> None:
    # With its length before each part, so that no two lists of parts run together into the same bytes.
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)


def open_checkpoint(folder_or_hub_id: str | Path, layout: Layout) -> Checkpoint:
    """Find a checkpoint: a local folder, the hub's cache, or else the hub, in this order.

    Args:
        folder_or_hub_id: a folder in diffusers layout, or `owner/name`.

    Raises:
        ModelError: not found, unreachable, incomplete or damaged; names the file and what to do.
    """
    folder = Path(folder_or_hub_id).expanduser()
    name = str(folder_or_hub_id)
    if folder.exists():
        return inspect_folder(folder, layout)
    if not HUB_ID.fullmatch(name):
        raise ModelError(f"{name}: expected a folder in diffusers layout or a hub id such as ali-vilab/i2vgen-xl; no such folder")
    return _from_cache(name, layout) or inspect_folder(_download(name, layout), layout)


def identify(folder_or_hub_id: str | Path, layout: Layout, device: str | None, dtype: str) -> tuple[str, str, str] | None:
    """(fingerprint, device, dtype) that loading would give, without loading; None where the checkpoint is not here.

    Raises:
        ModelError: it is here and incomplete or damaged, or there is no such device.
    """
    where = choose_device(device)
    folder = Path(folder_or_hub_id).expanduser()
    found = inspect_folder(folder, layout) if folder.exists() else _from_cache(str(folder_or_hub_id), layout)
    number = str(choose_dtype(dtype, where, layout.cuda_dtype)).removeprefix("torch.")
    return (found.fingerprint(), str(where), number) if found else None


def inspect_folder(folder: Path, layout: Layout) -> Checkpoint:
    """Check that a folder holds a whole checkpoint of this layout: configs can be read, no weights are missing or cut.

    Raises:
        ModelError: names the first file that is wrong and what to do.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: expected a folder in diffusers layout, got a file; give the folder of model_index.json")
    index = read_json(folder / "model_index.json")
    if (found := index.get("_class_name")) not in layout.pipelines:
        raise ModelError(
            f"{folder / 'model_index.json'}: expected a checkpoint of {layout.pipelines[0]}, got {found}; choose another folder"
        )
    layout = layout.of(index)
    for name in layout.tokenizers:
        if not any(all((folder / name / file).is_file() for file in files) for files in TOKENIZER_FILES):
            raise _missing(folder / name / "vocab.json", "and merges.txt, or tokenizer.json, or spiece.model")
    for file in layout.files:
        read_json(folder / file)
    variants, weights = {}, []
    for part in layout.weights:
        read_json(folder / part / "config.json")
        outside = layout.file if part == layout.filed else None
        variants[part], files = (None, [outside]) if outside else _weights(folder / part)
        weights += files
    for path in weights:
        header(path)
    configs = {folder / "model_index.json", *(folder / file for file in layout.files)}
    configs |= {folder / part / "config.json" for part in layout.weights}
    kept = (".json", ".txt", ".model")
    configs |= {path for name in layout.tokenizers for path in (folder / name).iterdir() if path.suffix in kept}
    return Checkpoint(folder, variants, tuple(sorted(weights)), tuple(sorted(configs)), layout.file, layout.filed)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object out of a file; ModelError where it is missing or is none."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: expected a JSON file, got one that cannot be read ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(content).__name__}; fetch it again")
    return content


def _missing(path: Path, also: str = "") -> ModelError:
    return ModelError(f"{path}{' ' + also if also else ''}: missing; the checkpoint is not complete, fetch it again")


def choose_weights(names: Sequence[str]) -> tuple[str | None, list[str]]:
    """Of the file names in a component's folder, the variant to load and its safetensors files (with their index)."""
    plain = [name for name in names if re.fullmatch(r"(model|diffusion_pytorch_model)(-\d+-of-\d+)?\.safetensors", name)]
    half = [name for name in names if re.fullmatch(r"(model|diffusion_pytorch_model)\.fp16(-\d+-of-\d+)?\.safetensors", name)]
    chosen, index = (half, "*.safetensors.index.fp16.json") if half else (plain, "*.safetensors.index.json")
    if sharded := [name for name in chosen if "-of-" in name]:
        return ("fp16" if half else None), sorted(sharded) + fnmatch.filter(names, index)
    return ("fp16" if half else None), chosen


def _weights(folder: Path) -> tuple[str | None, list[Path]]:
    names = sorted(path.name for path in folder.iterdir())
    variant, files = choose_weights(names)
    if not files:
        if unsafe := [name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".pth"))]:
            raise ModelError(
                f"{folder}: expected safetensors, got weights that may run code when opened ({unsafe[0]}); fetch the "
                "safetensors files, or convert them with save_pretrained, which writes safetensors"
            )
        raise _missing(folder / "*.safetensors")
    shards = [name for name in files if name.endswith(".safetensors")]
    for index in set(files) - set(shards):
        wanted = set(read_json(folder / index).get("weight_map", {}).values())
        if absent := sorted(wanted - set(shards)):
            raise _missing(folder / absent[0])
    if len(shards) > 1 and len(shards) == len(files):
        raise _missing(folder / "*.safetensors.index.json")
    return variant, [folder / name for name in shards]


def header(path: Path) -> bytes:
    """The JSON header of a safetensors file, or what is before the weights of a GGUF file; ModelError unless the file is whole."""
    if path.suffix == gguf_file.SUFFIX:
        return gguf_file.head(path)
    try:
        with safe_open(path, "pt"):  # it holds the header and the file's length against each other, and reads no weights
            pass
        with path.open("rb") as file:
            return file.read(int.from_bytes(file.read(8), "little"))
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path}: expected a whole safetensors file, got one that is cut or damaged ({one_line(error)}); fetch it again"
        ) from None


def _from_cache(name: str, layout: Layout) -> Checkpoint | None:
    """A complete checkpoint in the hub's cache; no network is used."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(huggingface_hub.snapshot_download(name, local_files_only=True))
        return inspect_folder(folder, layout)
    except (OSError, HfHubHTTPError, ModelError):
        return None  # nothing there, or not all: the hub is asked for the rest


def _download(name: str, layout: Layout) -> Path:
    """Fetch the files that are needed, and no others, into the hub's cache; shows the hub's own progress bar."""
    import huggingface_hub
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        # The hub's client sends this request once. It repeats others for half a minute when the hub does not answer.
        listed = [file.rfilename for file in huggingface_hub.HfApi().model_info(name, timeout=15).siblings or []]
        whole = layout.of(read_json(Path(huggingface_hub.hf_hub_download(name, "model_index.json"))))
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_needed(listed, whole)))
    except RepositoryNotFoundError:
        raise ModelError(f"{name}: neither a folder here nor a repository that the hub shows you; check the name") from None
    except Exception as error:  # noqa: BLE001 - the hub's client changes its HTTP library, and so its errors, now and then
        patterns = " ".join(f"'{pattern}'" for pattern in DOWNLOADED)
        raise ModelError(
            f"{name}: not in the hub's cache, and the hub cannot be reached ({type(error).__name__}: {one_line(error, 150)}); with "
            f"a network, fetch it with: hf download {name} --include {patterns}; or give the path of a folder that holds it"
        ) from None


def _needed(names: Sequence[str], layout: Layout) -> list[str]:
    needed = ["model_index.json", *layout.files]
    needed += [f"{tokenizer}/*.{ending}" for tokenizer in layout.tokenizers for ending in ("json", "txt", "model")]
    for part in layout.weights:
        inside = [name.removeprefix(f"{part}/") for name in names if name.startswith(f"{part}/")]
        files = [] if layout.file and part == layout.filed else choose_weights(inside)[1]
        needed += [f"{part}/config.json", *(f"{part}/{file}" for file in files)]
    return needed


def load_component(cls: Any, checkpoint: Checkpoint, part: str, **options: Any) -> Any:
    """One component with weights, in eval mode and without gradients.

    Args:
        cls: a class of diffusers or transformers with `from_pretrained`.
        part: its folder in the checkpoint.
        options: passed on, such as `dtype`.

    Raises:
        ModelError: the weights do not fit the config.
    """
    folder = checkpoint.folder / part
    if checkpoint.file and part == checkpoint.filed:
        return _load_file(cls, checkpoint.file, folder, **options)
    try:
        with quiet_libraries():
            model, info = cls.from_pretrained(
                folder, variant=checkpoint.variants[part], use_safetensors=True, local_files_only=True,
                low_cpu_mem_usage=True, output_loading_info=True, **options,
            )  # fmt: skip
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{folder}: {cls.__name__} cannot be made of it ({one_line(error)}); fetch it again") from None
    if absent := sorted(info["missing_keys"]):
        raise ModelError(
            f"{folder}: expected the tensors that config.json names, but {len(absent)} are missing, {absent[0]} among "
            "them; config and weights do not belong together, fetch both again"
        )
    return model.eval().requires_grad_(False)


def network_of(kind: Any, config: Mapping[str, Any]) -> Any:
    """A network of a class of diffusers or transformers from its config, in torch's default dtype; weights as its class draws them."""
    # The dtype of the file is not that of the run, and transformers would take it for parts of the network.
    own = {key: value for key, value in config.items() if not key.startswith("_") and key not in ("dtype", "torch_dtype")}
    return kind.from_config(own) if hasattr(kind, "from_config") else kind(kind.config_class.from_dict(own))


def _load_file(cls: Any, file: Path, folder: Path, **options: Any) -> Any:
    """A component whose weights are in one file, in the authors' format or in diffusers'; its config is in `folder`."""
    if not hasattr(cls, "from_single_file"):
        raise ModelError(f"{file}: diffusers reads no single file of {cls.__name__}; use a checkpoint's folder")
    number = options.pop("dtype", None)
    in_blocks = file.suffix == gguf_file.SUFFIX
    try:
        with quiet_libraries():
            if in_blocks:
                from diffusers import GGUFQuantizationConfig

                options = {"quantization_config": GGUFQuantizationConfig(compute_dtype=number)}
            model = cls.from_single_file(str(file), config=str(folder), torch_dtype=number, local_files_only=True, **options)
            if in_blocks:
                gguf_file.adopt(model, number)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"{file}: expected the weights of a {cls.__name__}, got such as cannot be read ({one_line(error)}); choose the file of "
            "this family's network"
        ) from None
    if empty := [name for name, weight in model.named_parameters() if weight.is_meta]:
        raise ModelError(f"{file}: expected the tensors of a {cls.__name__}, but {len(empty)} are missing, {empty[0]} among them")
    return model.eval().requires_grad_(False)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the bars and remarks of diffusers and transformers off the screen; what they return is checked instead."""
    import_diffusers()
    import diffusers.utils.logging as diffusers_log
    import transformers.utils.logging as transformers_log

    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in (diffusers_log, transformers_log)]
    try:
        for log, _, _ in before:
            log.set_verbosity_error()
            log.disable_progress_bar()
        yield
    finally:
        for log, verbosity, bar in before:
            log.set_verbosity(verbosity)
            if bar:
                log.enable_progress_bar()
