"""Pairs of texts: read, cut into subwords, and made arrays of one length.

A pair of files holds one sentence per line, line i of one being the translation of line
i of the other; files that end in .gz are decompressed. Both languages share one
vocabulary of subwords: byte pair encoding (Sennrich et al. 2016) of UTF-8's bytes, so
no text is unknown, and every text is recovered exactly.
"""

import gzip
from pathlib import Path
from typing import NamedTuple
import zlib

import numpy as np
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import Tokenizer
from tokenizers import trainers

# Marks that no text can contain: the tokenizer has no subwords for them, and its
# numbers begin after them.
PAD, START, END = range(3)
MARKS = 3
BYTES = 256


class Pairs(NamedTuple):
    """Sentences and their translations.

    Attributes:
      source: sentences, without line ends.
      target: as many.
    """

    source: list[str]
    target: list[str]


def read(flag: str, paths: tuple[Path, Path]) -> Pairs:
    """Reads a pair of files.

    Args:
      flag: the flag that names them, for errors.
      paths: of source and target.

    Raises:
      OSError: if a file can't be read.
      ValueError: if a file isn't text or is empty, or they differ in length.
    """
    source, target = (_read_lines(flag, path) for path in paths)
    if len(source) != len(target):
        raise ValueError(
            f"{flag} must name two files with equally many lines; {paths[0]} has "
            f"{len(source):,} and {paths[1]} has {len(target):,}"
        )
    return Pairs(source, target)


def _read_lines(flag: str, path: Path) -> list[str]:
    """The lines of a file; only \\n ends a line."""
    opens = gzip.open if path.suffix == ".gz" else open
    try:
        with opens(path, "rt", encoding="utf-8", newline="\n") as file:
            lines = [line.strip() for line in file]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{flag} must name two files of text; there is no {path}"
        ) from error
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{flag} must name files of UTF-8 text, compressed if they end in .gz; "
            f"{path} isn't ({error})"
        ) from error
    if not any(lines):
        raise ValueError(f"{flag} must name files of text; {path} is empty")
    return lines


def learn(pairs: Pairs, vocabulary: int) -> Tokenizer:
    """Learns subwords from both languages together; the same ones every time.

    Args:
      pairs: the training text.
      vocabulary: number of subwords and marks. There will be fewer if the text has too
        few pairs that occur twice.

    Raises:
      ValueError: if the vocabulary is too small for the bytes.
    """
    least = MARKS + BYTES + 1
    if vocabulary < least:
        raise ValueError(
            f"--vocabulary must be at least {least}, for {MARKS} marks, {BYTES} bytes "
            f"and a subword; got {vocabulary}"
        )
    tokenizer = Tokenizer(models.BPE())
    # A space belongs to the word after it, also at the beginning of a sentence.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - MARKS,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*pairs.source, *pairs.target], trainer)
    return tokenizer


def load(path: Path) -> tuple[Tokenizer, str]:
    """The subwords that a run keeps, and the file's content.

    Raises:
      ValueError: if the file holds something else.
    """
    try:
        content = path.read_text()
        return Tokenizer.from_str(content), content
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(
            f"{path} is damaged ({error}). Restore it, or give another --output"
        ) from error


def size(tokenizer: Tokenizer) -> int:
    """Number of subwords and marks."""
    return MARKS + tokenizer.get_vocab_size()


def encode(
    tokenizer: Tokenizer, sentences: list[str], length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sentences as numbers, each with an `END` and padded with `PAD`.

    Args:
      tokenizer: of the subwords.
      sentences: n of them.
      length: of the arrays. Longer sentences are cut, but keep their `END`.

    Returns:
      int32 numbers (n, length), and how long the sentences were (n,), with `END`.
    """
    subwords = [encoding.ids for encoding in tokenizer.encode_batch(sentences)]
    numbers = np.full((len(sentences), length), PAD, np.int32)
    for row, ids in zip(numbers, subwords, strict=True):
        kept = ids[: length - 1]
        row[: len(kept)] = np.array(kept, np.int32) + MARKS
        row[len(kept)] = END
    return numbers, np.array([len(ids) + 1 for ids in subwords], np.int32)


def decode(tokenizer: Tokenizer, numbers: np.ndarray) -> list[str]:
    """Sentences of numbers (n, length), each up to its `END`."""
    subwords = []
    for row in numbers.tolist():
        kept = row[: row.index(END)] if END in row else row
        subwords.append([number - MARKS for number in kept if number >= MARKS])
    return [sentence.strip() for sentence in tokenizer.decode_batch(subwords)]


def encode_pairs(
    tokenizer: Tokenizer, pairs: Pairs, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs to train on: those with words on both sides, and none too long.

    Args:
      tokenizer: of the subwords.
      pairs: sentences and their translations.
      length: maximum number of subwords in a sentence, including the `END`.

    Returns:
      int32 numbers (n, length) of sources and of targets.

    Raises:
      ValueError: if no pair is left.
    """
    source, target = (encode(tokenizer, side, length) for side in pairs)
    kept = np.all([(n > 1) & (n <= length) for _, n in (source, target)], axis=0)
    if not kept.any():
        raise ValueError(
            f"--max-length is too small: no training pair has at most {length} "
            "subwords on both sides"
        )
    return source[0][kept], target[0][kept]
