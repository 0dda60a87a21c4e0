"""I2VGen-XL, by a sampling loop of our own over the networks of diffusers and transformers."""
