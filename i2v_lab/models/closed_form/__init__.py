"""The closed-form model: an exact diffusion model of motion, which needs no weights."""
