"""`python -m attune` is the `attune` command."""

from attune.cli import app

if __name__ == "__main__":
    app()
