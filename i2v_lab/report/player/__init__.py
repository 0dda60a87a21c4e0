"""Clips in step: where each clip is shown, its bytes, and the page that plays them."""
