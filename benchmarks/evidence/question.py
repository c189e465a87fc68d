"""What a question is: rows to compare, claims, and how many runs decide them."""

from typing import Any
from typing import NamedTuple

from examples.images.config import Config
from examples.lifelong.config import Lifelong

Options = dict[str, Any]
Space = tuple[str, ...]


class Row(NamedTuple):
    """One way to train.

    Attributes:
      label: of the row.
      options: options of the trainer, beyond the question's.
      space: what is searched, as `--space` of examples.search says it.
      line: in a picture over a number, the line that the row belongs to.
      x: the number.
      method: in a map, what is judged by the best of its lines.
    """

    label: str
    options: Options
    space: Space = ()
    line: str = ""
    x: float = 0.0
    method: str = ""


class Claim(NamedTuple):
    """That one row has the higher final test accuracy of two.

    Attributes:
      text: the claim.
      row: label of the row that should be above.
      over: label of the row that should be below.
    """

    text: str
    row: str
    over: str


class Question(NamedTuple):
    """A setting, and what is compared in it.

    Attributes:
      about: what is asked.
      config: of every training; of a stream of tasks, a `Lifelong`.
      train: number of training examples, the first of the dataset; all if None.
      rows: the ways to train; the first is what gradients are counted by.
      reference: label of the row that the table's differences are from.
      claims: what would follow from the answer.
      trials: of each search of a row.
      seeds: runs of each row with its best parameters.
      even: whether its trials are spread evenly over what is searched; drawn at random
        if not.
      search: number of the first search. Each has other trials, and another seed for
        them, so that a second one shows how much was luck.
      searches: how many searches. Seeds take turns with them, so that intervals over
        seeds have the luck of the search in them if each has its own.
      searched: question whose search chose the parameters, if it isn't this one.
      x: what the number of a picture's rows is; a table's have none.
      width: whether it is asked how wide the range of the number is in which a line is
        within a point of its best; the picture is a map then.
    """

    about: str
    config: Config | Lifelong
    train: int | None
    rows: tuple[Row, ...]
    reference: str
    claims: tuple[Claim, ...]
    trials: int = 10
    seeds: int = 10
    even: bool = False
    search: int = 0
    searches: int = 1
    searched: str = ""
    x: str = ""
    width: bool = False
