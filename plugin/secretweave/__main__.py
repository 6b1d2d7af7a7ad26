"""`python -m secretweave`, and the console script."""

from secretweave.cli import main

if __name__ == "__main__":
    main()
