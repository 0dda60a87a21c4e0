"""A clip as a plain script of diffusers, without i2v_lab, that makes the same frames again."""

from i2v_lab.run.script.write import Script, script_for, script_of

__all__ = ["Script", "script_for", "script_of"]
