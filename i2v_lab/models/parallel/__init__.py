"""One clip on several devices of this machine: a process a device, which share the work of each denoising step."""

from i2v_lab.models.parallel.rules import check, devices_of, key_change, name_of, share

__all__ = ["check", "devices_of", "key_change", "name_of", "share"]
