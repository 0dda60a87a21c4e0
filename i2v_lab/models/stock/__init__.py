"""Model families that run through the pipelines of diffusers as they are: a table of families, and one class for all of them."""
