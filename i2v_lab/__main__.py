"""`python -m i2v_lab` is the command line."""

from i2v_lab.cli import main

if __name__ == "__main__":
    main()
