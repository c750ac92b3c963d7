"""The commands of `python -m alignment_core`: a file a command, what it was asked in, an exit code out."""
