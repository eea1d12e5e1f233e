"""`python -m console`: the same as `hookmirror`."""

from console.cli import main

if __name__ == "__main__":
    main()
