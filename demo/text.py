"""The demo model's text side: a word-level CLIP tokenizer and a small CLIP text encoder."""

from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo.captions import all_captions

WORD_END = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 16
HIDDEN_SIZE = 64
# The usual 0.02 leaves the words of so short a caption nearly alike at the start of training.
TOKEN_EMBEDDING_STD = 0.5


def _apply_merges(symbols: list[str], merges: dict[tuple[str, str], None]) -> list[str]:
    """Byte-pair encoding: each merge, oldest first, joins every such pair from the left."""
    for pair in merges:
        joined: list[str] = []
        for symbol in symbols:
            if joined and (joined[-1], symbol) == pair:
                joined[-1] += symbol
            else:
                joined.append(symbol)
        symbols = joined
    return symbols


def word_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that make each word one token.

    Merges of earlier words also apply within later ones ("ri" of "right" in "triangle"), so a
    word is joined from the pieces that they leave, never from its letters.
    """
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        letters = [*word[:-1], word[-1] + WORD_END]
        while len(pieces := _apply_merges(letters, merges)) > 1:
            merges[pieces[0], pieces[1]] = None
    return list(merges)


def new_tokenizer() -> CLIPTokenizer:
    """A tokenizer of every byte and of the caption grammar's words; anything else is spelt out."""
    words = sorted({word for caption in all_captions() for word in caption.text.split()})
    merges = word_merges(words)
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(byte + WORD_END for byte in alphabet)]
    tokens += [left + right for left, right in merges]
    vocab = {token: index for index, token in enumerate([*dict.fromkeys(tokens), START, END])}
    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,  # pyright: ignore[reportArgumentType]
        model_max_length=MAX_TOKENS,
    )


def text_config(tokenizer: CLIPTokenizer, hidden_size: int) -> CLIPTextConfig:
    """A CLIP text encoder of two layers that reads what `tokenizer` writes."""
    ids = tokenizer.get_vocab()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=hidden_size,
        bos_token_id=ids[START],
        eos_token_id=ids[END],
        pad_token_id=ids[END],
    )


def spread_token_embeddings(encoder: nn.Module) -> None:
    """Draws the embeddings of the tokens anew, far enough apart for so short a caption."""
    embeddings = [value for name, value in encoder.named_parameters() if name.endswith("token_embedding.weight")]
    nn.init.normal_(embeddings[0], std=TOKEN_EMBEDDING_STD)


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder of about 0.1 M parameters, initialised by the global generator."""
    encoder = CLIPTextModel(text_config(tokenizer, HIDDEN_SIZE))
    spread_token_embeddings(encoder)
    return encoder
