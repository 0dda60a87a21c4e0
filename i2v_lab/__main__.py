"""`python -m i2v_lab` is the command line."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the current folder: a file torch.py in it is not the library

from i2v_lab.cli import main

if __name__ == "__main__":
    main()
