"""What preflight checks of every row's prompt and group, whatever its images are."""

import hashlib
import re

from alignment_core.datasets.problems import Problems

TOKENS_READ = 75  # of CLIP's 77, without its marks of start and end
# As CLIP's tokenizer splits text before it splits words: each piece is a token or more, so this counts too few, never too many.
WORDS_AND_SIGNS = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\s\w]|_)+")


class PromptChecks:
    """Counts prompts and groups while rows go by, and tells `problems` of empty prompts and of prompts in many groups."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._groups: set[bytes] = set()
        self._group_of_prompt: dict[bytes, bytes] = {}
        self.num_empty = 0
        self.num_long = 0

    @property
    def num_groups(self) -> int:
        return len(self._groups)

    @property
    def num_unique(self) -> int:
        return len(self._group_of_prompt)

    def add(self, number: int, prompt: str, group_id: str) -> None:
        """Look at one row."""
        if not prompt.strip():
            self.num_empty += 1
            message = "the prompt is empty; such rows train the model without a prompt"
            self._problems.add("empty_prompt", "warning", number, message)
        if len(WORDS_AND_SIGNS.findall(prompt)) > TOKENS_READ:
            self.num_long += 1
            message = (
                f"the prompt has more than {TOKENS_READ} words and signs, each of which is a token or more; the text encoders "
                f"of Stable Diffusion read the first {TOKENS_READ} tokens, and what differs behind them is one prompt to them"
            )
            self._problems.add("long_prompt", "warning", number, message)
        group = digest(group_id.encode())
        self._groups.add(group)
        if self._group_of_prompt.setdefault(digest(prompt.encode()), group) != group:
            self._problems.add(
                "prompt_in_many_groups",
                "warning",
                number,
                "the prompt occurs with another group_id before, so it can be in training and validation at once; "
                "expected one group_id a prompt",
            )

    def check_overall(self, num_usable: int) -> None:
        """Look at all of them together."""
        if self.num_groups == 1:
            message = "all rows share one group_id, so none can be held out for validation"
            self._problems.add_overall("one_group", "warning", num_usable, message)


def digest(data: bytes) -> bytes:
    """A short hash, to remember what was seen."""
    return hashlib.blake2b(data, digest_size=16).digest()
