"""How much of a file of prompts is read, and held."""

MOST_PROMPTS = 1_000_000
MOST_ROWS = 5_000_000  # empty ones and repeats included: a few bytes of parquet may stand for billions
LONGEST_PROMPT = 2000  # characters, as in a spec
LONGEST_LINE_BYTES = 1 << 20
LARGEST_JSON_BYTES = 16 << 20  # which is parsed whole
LARGEST_COLUMN_BYTES = 512 << 20  # of a parquet file, once unpacked
MOST_ROWS_NAMED = 20
BATCH_ROWS = 1024
