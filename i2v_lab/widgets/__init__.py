"""What is seen in a notebook or a page: grids of clips that play in step."""
