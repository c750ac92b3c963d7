"""Files of prompts, read row by row: text, jsonl, JSON, CSV, TSV, parquet. No torch; pyarrow for parquet alone.

A set has each prompt once, in the order of the file. Empty rows and repeats are left out and told; what cannot be a prompt
is an error with the number of its row. The same prompts have the same hash in whatever form they came.
"""

from alignment_core.prompt_files.reading import read_prompts
from alignment_core.prompt_files.results import MOST_TOLD, BadRow, PromptsRefused, PromptsReport, line_of

__all__ = ["MOST_TOLD", "BadRow", "PromptsRefused", "PromptsReport", "line_of", "read_prompts"]
