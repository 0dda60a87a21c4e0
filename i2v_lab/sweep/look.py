"""Look: what a plan has to know of the picture, the model and the memory of each cell, on the device that will make it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar, cast

from i2v_lab import models
from i2v_lab.clip.key import clip_key
from i2v_lab.clip.params import ClipParams, resolution_size
from i2v_lab.clip.picture import open_picture
from i2v_lab.cluster.place import Place
from i2v_lab.cost import Budget, Forecast, Forecaster
from i2v_lab.cost.timing import alike, row_of
from i2v_lab.devices.gpus import default_device
from i2v_lab.devices.hardware import machine
from i2v_lab.errors import I2VLabError
from i2v_lab.models.base import VideoModel
from i2v_lab.models.parallel import check, devices_of, key_change, name_of
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep.definition import Cell

T = TypeVar("T")


class Look:
    """Looks at each picture, model and shape once, for all cells that share them: on this machine, or on a place of a cluster."""

    def __init__(self, store: Store, settings: Settings, place: Place | None = None) -> None:
        self.store, self.settings, self.place = store, settings, place
        self.forecaster = Forecaster(device=settings.device, store=store, parallel=settings.parallel)
        if place:
            budget = Budget(place.bytes, f"memory of {place.device_name} on {place.host}")
            self.forecaster = Forecaster(device=place.device, budget=budget, store=store, device_name=place.device_name,
                                         parallel=settings.parallel)  # fmt: skip
        self.known: dict[Any, Any] = {}

    def _once(self, key: Any, find: Callable[[], T]) -> T:
        """What was found for the key, or the error that came, raised again."""
        if key not in self.known:
            try:
                self.known[key] = find()
            except I2VLabError as error:
                self.known[key] = error
        if isinstance(found := self.known[key], I2VLabError):
            raise found
        return cast(T, found)

    def key(self, params: ClipParams, tier: int = 0) -> str:
        """The key of the clip on a tier of the memory ladder; "" where it is known only with the model.

        Raises:
            I2VLabError: the cell cannot run; why.
        """
        sha256 = self.picture(params.image)
        kind = self.family(params)
        kind.check(params)
        check(kind, params, self.settings.parallel, models.find(params.model)[1])
        identity, known = self.identity(params), models.by_content(params, fetch=False)
        changes = {**kind.pixel_changes(tier, params), **key_change(self.settings.parallel)}
        return clip_key(known, sha256, identity, changes) if identity and known else ""

    @property
    def device_name(self) -> str:
        """Of the place; "" of this machine."""
        return self.place.device_name if self.place else ""

    def picture(self, image: str) -> str:
        """The sha256 of a picture; its pixels are not kept."""
        return self._once(("picture", image), lambda: open_picture(image).sha256)

    def family(self, params: ClipParams) -> type[VideoModel]:
        """The family of a cell."""
        return self._once(("family", params.model), lambda: models.find(params.model)[0])

    def resolved(self, cell: Cell) -> Cell:
        """The cell with nothing of its clip left open."""
        image = cell.params.image
        seen = models.resolve(
            cell.params, lambda: self._once(("shape", image), lambda: open_picture(image)), self.family(cell.params)
        )
        return replace(cell, params=seen)

    def identity(self, params: ClipParams) -> models.Identity | None:
        model, dtype = params.model, params.dtype
        if place := self.place:
            return self._once(("model", model, dtype), lambda: place.identify(model, dtype))
        return self._once(("model", model, dtype), lambda: models.open(model, self.settings.device, dtype).identity_here)

    def where(self, params: ClipParams) -> tuple[str, str]:
        """(model family, device) of a cell; the device of the settings where the model is not known."""
        with suppress(I2VLabError):
            if found := self.identity(params):
                return found.name, found.device
        device = self.place.device if self.place else self.settings.device
        return "", default_device() if device == "auto" else device

    def fits(self, params: ClipParams) -> bool:
        """Whether a cell fits, as far as that can be predicted."""
        found = self.forecast(params)
        return found is None or found.fits

    def forecast(self, params: ClipParams) -> Forecast | None:
        """None where nothing can be predicted; the search for the model says why."""
        shape = (params.model, params.dtype, params.image, *alike(row_of(params)))
        with suppress(I2VLabError):
            return self._once(("forecast", *shape), lambda: self.forecaster.plan(params))
        return None

    def file_bytes(self, params: ClipParams) -> float | None:
        """The size of the clip, by the bytes a pixel of earlier runs of this size and length, or of all; None without a run."""
        found = self._once(("bytes", where := self.where(params)), lambda: self._measured(*where))
        rates = found.get((params.resolution, params.num_frames)) or [rate for same in found.values() for rate in same]
        return statistics.median(rates) * params.height * params.width * params.num_frames if rates else None

    def _measured(self, name: str, device: str) -> dict[tuple[str, int], list[float]]:
        """{(resolution, frames): bytes a pixel} of the runs of a model on a device."""
        found: dict[tuple[str, int], list[float]] = {}
        where = self.place.device_name if self.place else name_of(str(machine(device)["device_name"]), self.settings.parallel)
        rows = self.store.timings(name, where) if name else []
        for resolution, frames, *_, size, _, _, _, _ in rows:
            height, width = resolution_size(resolution)
            found.setdefault((resolution, frames), []).append((size or 0) / (height * width * frames))
        return found


class Looks:
    """A look at each kind of device of a cluster; where there is none, at this machine."""

    def __init__(self, store: Store, settings: Settings, places: Sequence[Place] = ()) -> None:
        self.store, self.settings = store, settings
        self._known: dict[Any, Look] = {}
        self._places = sorted({place.kind: place for place in places}.values(), key=lambda place: place.bytes)

    def at(self, place: Place | None) -> Look:
        """The look at a place."""
        kind = place and place.kind
        if kind not in self._known:
            self._known[kind] = Look(self.store, self.settings, place)
        return self._known[kind]

    def devices(self, params: ClipParams) -> tuple[str, ...]:
        """Those that a clip is made on."""
        return devices_of(self.best(params).where(params)[1], self.settings.parallel)

    def best(self, params: ClipParams) -> Look:
        """The look at the smallest device that holds a clip; at the largest, where none does."""
        if not self._places:
            return self.at(None)
        looks = [self.at(place) for place in self._places]
        return next((look for look in looks if look.fits(params)), looks[-1])

    def fitting(self, params: ClipParams) -> Callable[[Place], bool]:
        """Whether a place holds a clip; one that no place holds is refused by any. A kind of place is looked at once."""
        known: dict[Any, bool] = {}

        def fits(place: Place) -> bool:
            if (kind := place.kind) not in known:
                known[kind] = self.at(place).fits(params) or not self.best(params).fits(params)
            return known[kind]

        return fits

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the devices of the cluster, each once."""
        return tuple(dict.fromkeys(place.device_name for place in self._places))
