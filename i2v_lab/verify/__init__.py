"""Checks of this workbench on this machine's device, and what they measured: `i2v-lab verify`."""
